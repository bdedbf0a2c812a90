"""The files of a segment, by row: embeddings and their SQ8 codes."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.index.port import SHARED_SUFFIX
from app.index.row_file import RowFile, row_checksums
from app.index.row_numbers import zero_padded
from app.index.sq8_codes import Sq8Codes
from model.architecture import EMBEDDING_DIM

# Names of files in snapshots; a snapshot of an older version has the same names.
_EMBEDDINGS_FILE = f"embeddings{SHARED_SUFFIX}"
_SQ8_FILE = f"fine{SHARED_SUFFIX}"


class SegmentFiles:
    """Two files, and in memory a checksum of each row, which reveals rows that the disk damaged.

    The rules for threads are those of `RowFile`.
    """

    def __init__(self, embeddings: RowFile[np.float16], sq8: Sq8Codes, checksums: NDArray[np.uint64]) -> None:
        """checksums: of each row, the checksum of its embedding plus that of its SQ8 code."""
        self.embeddings = embeddings
        self.sq8 = sq8
        self.checksums = checksums

    def write(self, rows: NDArray[np.int64], embeddings: NDArray[np.float16], projected: NDArray[np.float32]) -> None:
        """Write embeddings `(N, 2048)` and codes of their projections `(N, D)` to ascending rows. Raises OSError."""
        self.embeddings.write(rows, embeddings)
        checksums = row_checksums(embeddings) + self.sq8.write(rows, projected)
        self.checksums = zero_padded(self.checksums, int(rows.max(initial=-1)) + 1)
        self.checksums[rows] = checksums

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Overwrite ascending rows with zeros. Raises OSError."""
        self.embeddings.write(rows, np.zeros((len(rows), EMBEDDING_DIM), np.float16))
        self.sq8.clear(rows)

    def damaged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row differs from what was written. Raises OSError."""
        checksums = row_checksums(self.embeddings.read_unmapped(rows)) + self.sq8.checksums(rows)
        damaged: NDArray[np.bool_] = checksums != self.checksums[rows]
        return damaged

    def close(self) -> None:
        """Delete the files; running searches keep the mapping that they read from."""
        self.embeddings.close()
        self.sq8.file.close()

    def link(self, folder: Path) -> None:
        """Sync the files, then hard-link them into a folder on the same disk. Raises OSError."""
        for file, name in ((self.embeddings, _EMBEDDINGS_FILE), (self.sq8.file, _SQ8_FILE)):
            file.sync()
            file.link(folder / name)

    @classmethod
    def restore(cls, folder: Path, path: Path, dims: int, step: float, checksums: NDArray[np.uint64]) -> Self:
        """Open the files that `link` put into a folder, and hard-link them at `path`.

        dims, step: of the SQ8 codes. Raises OSError, or ValueError if rows are missing.
        """
        with ExitStack() as files:
            path.hardlink_to(folder / _EMBEDDINGS_FILE)
            files.callback(path.unlink)
            sq8_path(path).hardlink_to(folder / _SQ8_FILE)
            files.pop_all()
        rows = cls(RowFile(path, EMBEDDING_DIM, np.float16), Sq8Codes(sq8_path(path), dims, step), checksums)
        count = min(len(rows.embeddings), len(rows.sq8.file))
        if count < len(checksums):
            rows.close()
            raise ValueError(f"there are {count} embeddings with SQ8 codes for {len(checksums)} rows")
        rows.sq8.file.prefetch()  # a search reads hundreds of codes, and each page fault would wait for the disk
        return rows


def sq8_path(path: Path) -> Path:
    """The file of SQ8 codes that belongs to a file of embeddings."""
    return path.with_suffix(".fine")
