"""Codes of a byte a direction, on disk, that tell which of many likely crops are worth comparing exactly."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.index.row_file import RowFile, row_sums

_MOST = 127
_WITHIN = 0.999
"""Of all numbers, how many are not cut off."""

_WORD_BYTES = 8


class FineCodes:
    """By row number, what a projection `(D,)` of an embedding is, in steps of one size, from -127 to 127.

    They tell crops apart far better than codes in memory do, and take a sixteenth of what the embeddings take. What is
    said of the file of embeddings, `RowFile`, holds for theirs.
    """

    def __init__(self, path: Path, dims: int, step: float) -> None:
        """dims: D; step: see `step_for`. Raises OSError."""
        self.step = step
        self._dims = dims
        self._width = -(-dims // _WORD_BYTES) * _WORD_BYTES
        self.file = RowFile(path, self._width, np.int8)

    def write(self, rows: NDArray[np.int64], projected: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Write the codes of projections `(N, D)` as rows, ascending, and return their sums. Raises OSError."""
        codes = np.zeros((len(projected), self._width), np.int8)
        codes[:, : self._dims] = np.clip(np.rint(projected / self.step), -_MOST, _MOST)
        self.file.write(rows, codes)
        return row_sums(codes)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Overwrite rows, ascending, with zeros. Raises OSError."""
        self.file.write(rows, np.zeros((len(rows), self._width), np.int8))

    def sums(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The sums of rows, as they are on the disk now. Raises OSError."""
        return row_sums(self.file.read_past_memory(rows))

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """How alike rows and a projected query `(D,)` seem, `(N,)`: the order is what counts."""
        codes = self.file.read(rows)[:, : self._dims].astype(np.float32)
        similarities: NDArray[np.float32] = np.einsum("nd,d->n", codes, query)  # unlike @, in this thread alone
        return similarities


def step_for(sample: NDArray[np.float32]) -> float:
    """The size of a step, for projections like these `(N, D)`."""
    return max(float(np.quantile(np.abs(sample), _WITHIN)) / _MOST, float(np.finfo(np.float32).tiny))
