"""How long the parts of a gallery's embeddings are, and whether a query counts them as its model does."""

import math

import numpy as np
from numpy.typing import NDArray

from model.architecture import PART_DIM, PARTS

_EVEN = 0.99
"""From there on, parts count as the model says but for rounding."""


def typical_lengths(embeddings: NDArray[np.float16]) -> NDArray[np.float64]:
    """The length `(8,)` that each part of embeddings `(N, 2048)` has in the median, so that a few may be damaged.

    Equal ones where no embedding is there to tell.
    """
    lengths = np.linalg.norm(embeddings.astype(np.float64).reshape(-1, len(PARTS), PART_DIM), axis=2)
    sound = lengths[np.isfinite(lengths).all(axis=1) & lengths.any(axis=1)]
    return np.median(sound, axis=0) if len(sound) else np.full(len(PARTS), len(PARTS) ** -0.5)


def evenness(query: NDArray[np.float32], lengths: NDArray[np.float64]) -> float:
    """How evenly a query `(2048,)` weights the parts that embeddings have with these lengths.

    It is 1 for one whose parts have the same lengths, or all as many times as long, down to the share of a part for one
    that has this part alone: 1/8 where all count the same.
    """
    parts = query.reshape(len(PARTS), PART_DIM)
    squares: list[float] = np.einsum("pd,pd->p", parts, parts).tolist()
    total = sum(squares)
    if not total:
        return 1.0
    along = sum(length * math.sqrt(square) for length, square in zip(lengths.tolist(), squares, strict=True))
    found = along**2 / (total * sum(length**2 for length in lengths.tolist()))
    return 1.0 if found > _EVEN else found
