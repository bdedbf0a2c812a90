"""The lengths of the parts of a gallery's embeddings, and how far a query's part weights differ from them."""

import numpy as np
from numpy.typing import NDArray

from model.architecture import PART_DIM, PARTS

_EVEN = 0.99
"""From this value on, the weights are the model's, up to rounding."""


def median_part_lengths(embeddings: NDArray[np.float16]) -> NDArray[np.float64]:
    """The median length `(8,)` of each part of embeddings `(N, 2048)`, so that a few damaged ones do not matter.

    Equal lengths if there is no embedding.
    """
    lengths = np.linalg.norm(embeddings.astype(np.float64).reshape(-1, len(PARTS), PART_DIM), axis=2)
    valid = lengths[np.isfinite(lengths).all(axis=1) & lengths.any(axis=1)]
    return np.median(valid, axis=0) if len(valid) else np.full(len(PARTS), len(PARTS) ** -0.5)


def evenness(queries: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each query `(N, 2048)`, the squared cosine between its part lengths and those of the gallery: `(N,)`.

    It is 1 if the query's parts have the gallery's lengths up to a common factor. For a query of a single part, it is
    that part's share of the squared length: 1/8 if all parts have the same length.
    """
    parts = queries.reshape(-1, len(PARTS), PART_DIM)
    squares = np.einsum("npd,npd->np", parts, parts).astype(np.float64)
    total = squares.sum(axis=1)
    squared_cosines = (np.sqrt(squares) @ lengths) ** 2 / (np.where(total > 0, total, 1) * (lengths @ lengths))
    return np.where((squared_cosines > _EVEN) | (total == 0), 1.0, squared_cosines)
