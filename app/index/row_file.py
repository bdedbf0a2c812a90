"""Embeddings on disk by row number, read through memory."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.kit.files import sync_file
from model.architecture import EMBEDDING_DIM

STORED = np.dtype("<f2")
ROW_BYTES = EMBEDDING_DIM * STORED.itemsize

_SECONDS_FROM_MEMORY = 1e-5
"""More than that a row takes from memory, less than from a disk."""

_GROWTH_ROWS = 16_384  # 64 MiB of address space, which takes disk space as rows are written
_FACTORS = np.random.default_rng(1804).integers(2**63, size=ROW_BYTES // 8, dtype=np.uint64) * 2 + 1


class RowFile:
    """Rows `(2048,)` float16 in a file without a header, row after row.

    `read` may be called by any thread, the rest by one at a time, and what is written meanwhile must be other rows. A
    read that the disk cannot serve ends the process, as it does for every mapped file.
    """

    def __init__(self, path: Path) -> None:
        """Open a file, or begin one. Raises OSError."""
        self.path = path
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._on_disk = False
        self._map: mmap.mmap | None = None
        self._rows = np.empty((0, EMBEDDING_DIM), STORED)
        self._show(path.stat().st_size // ROW_BYTES)

    def __len__(self) -> int:
        """How many rows can be read; those that were never written are zeros."""
        return len(self._rows)

    def write(self, rows: NDArray[np.int64], embeddings: NDArray[np.float16]) -> None:
        """Write rows, ascending, and make the file longer where they need it. Raises OSError."""
        last = int(rows[-1]) if len(rows) else -1
        if last >= len(self):
            whole = -(-(last + 1) // _GROWTH_ROWS) * _GROWTH_ROWS
            self._file.truncate(whole * ROW_BYTES)
            self._show(whole)
        embeddings = np.ascontiguousarray(embeddings, STORED)
        for start, end in _runs(rows):
            self._write_all(int(rows[start]), embeddings[start:end].tobytes())

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """A copy of some rows, `(N, 2048)`.

        Where the last ones had to come from the disk, it is asked for all of these at once.
        """
        began = time.perf_counter()
        if self._on_disk and self._map is not None and hasattr(mmap, "MADV_WILLNEED"):
            for row in rows.tolist():
                self._map.madvise(mmap.MADV_WILLNEED, row * ROW_BYTES, ROW_BYTES)
        embeddings = np.take(self._rows, rows, axis=0)
        self._on_disk = time.perf_counter() - began > len(rows) * _SECONDS_FROM_MEMORY
        return embeddings

    def read_past_memory(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """The same for whoever reads many, row after row: the pages do not become this process's memory."""
        embeddings = np.empty((len(rows), EMBEDDING_DIM), STORED)
        for start, end in _runs(rows):
            first = int(rows[start])
            self._file.seek(first * ROW_BYTES)
            content = self._file.read((end - start) * ROW_BYTES)
            if len(content) < (end - start) * ROW_BYTES:
                raise OSError(f"{self.path} ends before row {first + end - start}")
            embeddings[start:end] = np.frombuffer(content, STORED).reshape(end - start, EMBEDDING_DIM)
        return embeddings

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
        self._map = mmap.mmap(self._file.fileno(), rows * ROW_BYTES, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(self._map, STORED).reshape(rows, EMBEDDING_DIM)

    def _write_all(self, row: int, content: bytes) -> None:
        self._file.seek(row * ROW_BYTES)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where row numbers that follow each other start and end."""
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
    yield from zip([0, *ends], ends, strict=False)


def row_sums(embeddings: NDArray[np.float16]) -> NDArray[np.uint64]:
    """A checksum of each row, `(N,)`, by which a row that the disk damaged is told.

    Sums of products with odd numbers: any change within eight bytes changes the sum, and any other does but by chance.
    """
    words = np.ascontiguousarray(embeddings, STORED).view(np.uint64)
    sums: NDArray[np.uint64] = words @ _FACTORS
    return sums
