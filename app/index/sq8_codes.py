"""SQ8 codes on disk, one byte a dimension, which refine the candidates of an IVF search."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.index.row_file import RowFile, row_checksums

_LARGEST = 127
_QUANTILE = 0.999
"""Share of absolute values within the range of the codes; larger ones are clipped."""

_WORD_BYTES = 8


class Sq8Codes:
    """By row number, the projection `(D,)` of an embedding, scalar-quantized to 8 bits: -127 to 127 steps.

    They are far more exact than the IVF codes, and take a sixteenth of the embeddings' space. Rows have the same rules
    as those of `RowFile`.
    """

    def __init__(self, path: Path, dims: int, step: float) -> None:
        """dims: D; step: see `step_for`. Raises OSError."""
        self.step = step
        self._dims = dims
        self._width = -(-dims // _WORD_BYTES) * _WORD_BYTES
        self.file = RowFile(path, self._width, np.int8)

    def write(self, rows: NDArray[np.int64], projected: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Write the codes of projections `(N, D)` to ascending rows, and return their checksums. Raises OSError."""
        codes = np.zeros((len(projected), self._width), np.int8)
        codes[:, : self._dims] = np.clip(np.rint(projected / self.step), -_LARGEST, _LARGEST)
        self.file.write(rows, codes)
        return row_checksums(codes)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Overwrite ascending rows with zeros. Raises OSError."""
        self.file.write(rows, np.zeros((len(rows), self._width), np.int8))

    def checksums(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The checksums of rows as they are on disk now. Raises OSError."""
        return row_checksums(self.file.read_unmapped(rows))

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Approximate similarities of rows and a projected query `(D,)`, `(N,)`, in units of a step."""
        codes = self.file.read(rows)[:, : self._dims].astype(np.float32)
        similarities: NDArray[np.float32] = np.einsum("nd,d->n", codes, query)  # unlike @, einsum starts no threads
        return similarities


def step_for(sample: NDArray[np.float32]) -> float:
    """The quantization step for projections such as a sample `(N, D)`."""
    return max(float(np.quantile(np.abs(sample), _QUANTILE)) / _LARGEST, float(np.finfo(np.float32).tiny))
