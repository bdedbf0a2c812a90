"""The lengths of the parts of a gallery's embeddings, and how far a query's part weights differ from them."""

import math

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


def evenness(query: NDArray[np.float32], lengths: NDArray[np.float64]) -> float:
    """The squared cosine between the part lengths of a query `(2048,)` and those of the gallery.

    It is 1 if the query's parts have the gallery's lengths up to a common factor. For a query of a single part, it is
    that part's share of the squared length: 1/8 if all parts have the same length.
    """
    parts = query.reshape(len(PARTS), PART_DIM)
    squares: list[float] = np.einsum("pd,pd->p", parts, parts).tolist()
    total = sum(squares)
    if not total:
        return 1.0
    dot = sum(length * math.sqrt(square) for length, square in zip(lengths.tolist(), squares, strict=True))
    squared_cosine = dot**2 / (total * sum(length**2 for length in lengths.tolist()))
    return 1.0 if squared_cosine > _EVEN else squared_cosine
