"""Fixed-width rows of numbers in a file, read through a memory mapping."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.files import sync_file

Number = TypeVar("Number", bound=np.generic)

_SECONDS_FROM_MEMORY = 1e-5
"""A time per row that is longer than a read from memory and shorter than one from a disk."""

_PREFETCH_BYTES = 128 * 1024
"""Linux reads no more for one madvise call."""

_GROWTH_ROWS = 16_384  # the file is sparse: disk space is used only when rows are written
_SEED = 1804


class RowFile(Generic[Number]):
    """Rows of the same width, one after the other, in a file without a header.

    Any thread may call `read`; one thread at a time may call the other methods, and may write only rows that no other
    thread reads. As with every memory-mapped file, a read error of the disk kills the process (SIGBUS).
    """

    def __init__(self, path: Path, width: int, kind: type[Number]) -> None:
        """Open or create a file of rows `(width,)` of a NumPy scalar type. Raises OSError."""
        self.path = path
        self._width = width
        self._kind = np.dtype(kind).newbyteorder("<")
        self._row_bytes = width * self._kind.itemsize
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._last_read_slow = False
        self._map: mmap.mmap | None = None
        self._rows: NDArray[Number] = np.empty((0, width), self._kind)
        self._map_rows(path.stat().st_size // self._row_bytes)

    def __len__(self) -> int:
        """Number of rows that can be read; rows that were never written are zeros."""
        return len(self._rows)

    def write(self, rows: NDArray[np.int64], numbers: NDArray[Number]) -> None:
        """Write numbers `(N, width)` to ascending rows, extending the file if needed. Raises OSError."""
        last = int(rows[-1]) if len(rows) else -1
        if last >= len(self):
            extended = -(-(last + 1) // _GROWTH_ROWS) * _GROWTH_ROWS
            self._file.truncate(extended * self._row_bytes)
            self._map_rows(extended)
        numbers = np.ascontiguousarray(numbers, self._kind)
        for start, end in _runs(rows):
            self._write_all(int(rows[start]), numbers[start:end].tobytes())

    def read(self, rows: NDArray[np.int64]) -> NDArray[Number]:
        """A copy of rows, `(N, width)`.

        If the last read had to wait for the disk, the pages of all rows are requested first, so that the disk reads
        them in parallel.
        """
        began = time.perf_counter()
        if self._last_read_slow:
            self._prefetch_rows(rows)
        numbers = np.take(self._rows, rows, axis=0)
        self._last_read_slow = time.perf_counter() - began > len(rows) * _SECONDS_FROM_MEMORY
        return numbers

    def read_unmapped(self, rows: NDArray[np.int64]) -> NDArray[Number]:
        """A copy of many ascending rows, by file reads: mapped pages would count as memory of this process."""
        numbers: NDArray[Number] = np.empty((len(rows), self._width), self._kind)
        for start, end in _runs(rows):
            first = int(rows[start])
            self._file.seek(first * self._row_bytes)
            content = self._file.read((end - start) * self._row_bytes)
            if len(content) < (end - start) * self._row_bytes:
                raise OSError(f"{self.path} ends before row {first + end - start}")
            numbers[start:end] = np.frombuffer(content, self._kind).reshape(end - start, self._width)
        return numbers

    def prefetch(self) -> None:
        """Ask the system to read the whole file into the page cache, in the background."""
        if self._map is not None and hasattr(mmap, "MADV_WILLNEED"):
            for start in range(0, len(self._map), _PREFETCH_BYTES):
                self._map.madvise(mmap.MADV_WILLNEED, start, min(_PREFETCH_BYTES, len(self._map) - start))

    def release_pages(self) -> None:
        """Unmap the pages that were read; they stay in the page cache while it has room."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def sync(self) -> None:
        """Flush all writes to the disk. Raises OSError."""
        sync_file(self.path)

    def link(self, path: Path) -> None:
        """Create a hard link on the same disk. Raises OSError."""
        os.link(self.path, path)

    def close(self) -> None:
        """Close the file and delete its name; other hard links keep it."""
        self._file.close()
        with suppress(PermissionError):  # Windows deletes no mapped file; the folder is cleared at the next start
            self.path.unlink(missing_ok=True)

    def _map_rows(self, rows: int) -> None:
        """Map this number of rows. Readers of the former mapping keep it alive."""
        if rows == 0:
            return
        self._map = mmap.mmap(self._file.fileno(), rows * self._row_bytes, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(self._map, self._kind).reshape(rows, self._width)

    def _prefetch_rows(self, rows: NDArray[np.int64]) -> None:
        """Ask the system to read rows in the background."""
        if self._map is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        first = rows * self._row_bytes // mmap.PAGESIZE
        last = ((rows + 1) * self._row_bytes - 1) // mmap.PAGESIZE
        for page in np.unique(np.concatenate([first, last])).tolist():  # a row spans two pages at most
            self._map.madvise(mmap.MADV_WILLNEED, page * mmap.PAGESIZE, mmap.PAGESIZE)

    def _write_all(self, row: int, content: bytes) -> None:
        self._file.seek(row * self._row_bytes)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of consecutive row numbers, as positions in `rows`."""
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
    yield from zip([0, *ends], ends, strict=False)


def row_checksums(rows: NDArray[Number]) -> NDArray[np.uint64]:
    """A checksum of each row, `(N,)`: the sum of its 64-bit words times fixed random odd numbers.

    A change within one word always changes the checksum; other changes leave it equal with negligible probability.
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    factors = np.random.default_rng(_SEED).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    checksums: NDArray[np.uint64] = words @ factors
    return checksums
