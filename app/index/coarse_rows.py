"""What the disk holds of crops in the coarse tier, by row: their embeddings, and fine codes of these."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.index.fine_codes import FineCodes
from app.index.port import SHARED
from app.index.row_file import RowFile, row_sums
from app.index.row_numbers import longer
from model.architecture import EMBEDDING_DIM

_EMBEDDINGS_FILE = f"embeddings{SHARED}"
_FINE_FILE = f"fine{SHARED}"


class CoarseRows:
    """Two files, and in memory the sums by which rows that the disk damaged are told.

    `RowFile` says who may call what.
    """

    def __init__(self, embeddings: RowFile[np.float16], fine: FineCodes, sums: NDArray[np.uint64]) -> None:
        """sums: of the rows that are there, each its embedding's and its fine code's together."""
        self.embeddings = embeddings
        self.fine = fine
        self.sums = sums

    def write(self, rows: NDArray[np.int64], embeddings: NDArray[np.float16], projected: NDArray[np.float32]) -> None:
        """Write embeddings `(N, 2048)`, and codes of their projections `(N, D)`, as rows, ascending. Raises OSError."""
        self.embeddings.write(rows, embeddings)
        sums = row_sums(embeddings) + self.fine.write(rows, projected)
        self.sums = longer(self.sums, int(rows.max(initial=-1)) + 1)
        self.sums[rows] = sums

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Overwrite rows, ascending, with zeros. Raises OSError."""
        self.embeddings.write(rows, np.zeros((len(rows), EMBEDDING_DIM), np.float16))
        self.fine.clear(rows)

    def damaged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of rows, which are not what was written. Raises OSError."""
        sums = row_sums(self.embeddings.read_past_memory(rows)) + self.fine.sums(rows)
        damaged: NDArray[np.bool_] = sums != self.sums[rows]
        return damaged

    def close(self) -> None:
        """Delete the files; searches that go on keep what they read from."""
        self.embeddings.close()
        self.fine.file.close()

    def link(self, folder: Path) -> None:
        """Give the files a name in a folder on the same disk once all that was written is on it. Raises OSError."""
        for file, name in ((self.embeddings, _EMBEDDINGS_FILE), (self.fine.file, _FINE_FILE)):
            file.sync()
            file.link(folder / name)

    @classmethod
    def restore(cls, folder: Path, path: Path, dims: int, step: float, sums: NDArray[np.uint64]) -> Self:
        """From the files that `link` named in a folder, which get names at `path` too.

        dims, step: of the fine codes. Raises OSError, or ValueError if rows are missing.
        """
        with ExitStack() as files:
            path.hardlink_to(folder / _EMBEDDINGS_FILE)
            files.callback(path.unlink)
            fine_path(path).hardlink_to(folder / _FINE_FILE)
            files.pop_all()
        rows = cls(RowFile(path, EMBEDDING_DIM, np.float16), FineCodes(fine_path(path), dims, step), sums)
        there = min(len(rows.embeddings), len(rows.fine.file))
        if there < len(sums):
            rows.close()
            raise ValueError(f"there are {there} embeddings with fine codes for {len(sums)} rows")
        rows.fine.file.fetch()  # a search reads hundreds of them, each of which would wait for the disk
        return rows


def fine_path(path: Path) -> Path:
    """Where the fine codes of the embeddings in a file lie."""
    return path.with_suffix(".fine")
