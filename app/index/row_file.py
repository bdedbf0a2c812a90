"""Rows of numbers on disk, read through memory."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.kit.files import sync_file

Number = TypeVar("Number", bound=np.generic)

_SECONDS_FROM_MEMORY = 1e-5
"""More than that a row takes from memory, less than from a disk."""

_FETCHED_AT_ONCE = 128 * 1024
"""Of more, Linux reads no more than the beginning."""

_GROWTH_ROWS = 16_384  # address space, which takes disk space as rows are written
_SEED = 1804


class RowFile(Generic[Number]):
    """Rows of as many numbers each, in a file without a header, row after row.

    `read` may be called by any thread, the rest by one at a time, and what is written meanwhile must be other rows. A
    read that the disk cannot serve ends the process, as it does for every mapped file.
    """

    def __init__(self, path: Path, width: int, kind: type[Number]) -> None:
        """Open a file, or begin one, of rows `(width,)` of a kind of NumPy's numbers. Raises OSError."""
        self.path = path
        self._width = width
        self._kind = np.dtype(kind).newbyteorder("<")
        self._row_bytes = width * self._kind.itemsize
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._on_disk = False
        self._map: mmap.mmap | None = None
        self._rows: NDArray[Number] = np.empty((0, width), self._kind)
        self._show(path.stat().st_size // self._row_bytes)

    def __len__(self) -> int:
        """How many rows can be read; those that were never written are zeros."""
        return len(self._rows)

    def write(self, rows: NDArray[np.int64], numbers: NDArray[Number]) -> None:
        """Write numbers `(N, width)` as rows, ascending, making the file longer where they need it. Raises OSError."""
        last = int(rows[-1]) if len(rows) else -1
        if last >= len(self):
            whole = -(-(last + 1) // _GROWTH_ROWS) * _GROWTH_ROWS
            self._file.truncate(whole * self._row_bytes)
            self._show(whole)
        numbers = np.ascontiguousarray(numbers, self._kind)
        for start, end in _runs(rows):
            self._write_all(int(rows[start]), numbers[start:end].tobytes())

    def read(self, rows: NDArray[np.int64]) -> NDArray[Number]:
        """A copy of some rows, `(N, width)`.

        Where the last ones had to come from the disk, it is asked for all of these at once.
        """
        began = time.perf_counter()
        if self._on_disk:
            self._ask_for(rows)
        numbers = np.take(self._rows, rows, axis=0)
        self._on_disk = time.perf_counter() - began > len(rows) * _SECONDS_FROM_MEMORY
        return numbers

    def read_past_memory(self, rows: NDArray[np.int64]) -> NDArray[Number]:
        """The same for whoever reads many, row after row: the pages do not become this process's memory."""
        numbers: NDArray[Number] = np.empty((len(rows), self._width), self._kind)
        for start, end in _runs(rows):
            first = int(rows[start])
            self._file.seek(first * self._row_bytes)
            content = self._file.read((end - start) * self._row_bytes)
            if len(content) < (end - start) * self._row_bytes:
                raise OSError(f"{self.path} ends before row {first + end - start}")
            numbers[start:end] = np.frombuffer(content, self._kind).reshape(end - start, self._width)
        return numbers

    def fetch(self) -> None:
        """Have the system read all of the file into its cache, as far as there is room, sooner than it is asked for."""
        if self._map is not None and hasattr(mmap, "MADV_WILLNEED"):
            for start in range(0, len(self._map), _FETCHED_AT_ONCE):
                self._map.madvise(mmap.MADV_WILLNEED, start, min(_FETCHED_AT_ONCE, len(self._map) - start))

    def release(self) -> None:
        """Let go of the pages that were read; they stay in the system's cache as long as it has room."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def sync(self) -> None:
        """Return once all that was written is on the disk. Raises OSError."""
        sync_file(self.path)

    def link(self, path: Path) -> None:
        """Give the file one more name on the same disk. Raises OSError."""
        os.link(self.path, path)

    def close(self) -> None:
        """Close the file and take away its name here; its other names keep it."""
        self._file.close()
        with suppress(PermissionError):  # Windows deletes no file that is still read; its folder is cleared at start
            self.path.unlink(missing_ok=True)

    def _show(self, rows: int) -> None:
        """Map that many rows. Whoever reads through the earlier mapping keeps it as long as needed."""
        if rows == 0:
            return
        self._map = mmap.mmap(self._file.fileno(), rows * self._row_bytes, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(self._map, self._kind).reshape(rows, self._width)

    def _ask_for(self, rows: NDArray[np.int64]) -> None:
        """Have the disk read some rows, without waiting for it."""
        if self._map is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        first = rows * self._row_bytes // mmap.PAGESIZE
        last = ((rows + 1) * self._row_bytes - 1) // mmap.PAGESIZE
        for page in np.unique(np.concatenate([first, last])).tolist():  # a row is no longer than two pages
            self._map.madvise(mmap.MADV_WILLNEED, page * mmap.PAGESIZE, mmap.PAGESIZE)

    def _write_all(self, row: int, content: bytes) -> None:
        self._file.seek(row * self._row_bytes)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where row numbers that follow each other start and end."""
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
    yield from zip([0, *ends], ends, strict=False)


def row_sums(rows: NDArray[Number]) -> NDArray[np.uint64]:
    """A checksum of each row, `(N,)`, by which a row that the disk damaged is told.

    Sums of products with odd numbers: any change within eight bytes changes the sum, and any other does but by chance.
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    factors = np.random.default_rng(_SEED).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    sums: NDArray[np.uint64] = words @ factors
    return sums
