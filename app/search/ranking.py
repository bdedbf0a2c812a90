"""The arithmetic of a search: one query of several embeddings, how alike each part of two is, what parts count for."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.architecture import PARTS

Parts = NDArray[np.float32]
"""An embedding `(8, 256)`: each part L2-normalised times its weight, of norm 1 together.

The weight of a part is its checkpoint's, so all embeddings of one model have parts of the same lengths, but for the
rounding of stored ones to float16. The similarity of two is their dot product: the mean of the parts' cosines, in which
each counts for its share, the square of its weight.
"""

Multipliers = NDArray[np.float64]
"""By what a search multiplies the share of each part, `(8,)`: 0 or more, the largest 1."""

Shares = NDArray[np.float64]
"""What each part counts for in a similarity, `(8,)`: 0 or more, of sum 1."""

_TINY = 1e-24
"""Less than any part's squared length: parts of several pictures that cancel each other out have none."""


def join_embeddings(embeddings: Sequence[Parts]) -> Parts:
    """The embedding of several pictures of one person: the mean of each part, brought back to that part's length.

    The field calls this multi-query (Zheng et al., ICCV 2015).
    """
    lengths = np.linalg.norm(embeddings, axis=2).mean(axis=0)
    mean = np.mean(embeddings, axis=0)
    scales = lengths / np.maximum(np.linalg.norm(mean, axis=1), np.sqrt(_TINY))
    joined: Parts = (mean * scales[:, np.newaxis]).astype(np.float32)
    return joined


def part_similarities(query: Parts, crop: Parts) -> dict[str, float]:
    """The cosine of each part by name; their mean, by the shares of the parts, is the similarity of the embeddings.

    Lengths are the query's for both. A crop's own differ from them by its rounding to float16 alone, which would move
    the mean away from the dot product that an index ranks by; so rounding may lift a cosine a hair above 1.
    """
    cosines = np.clip(np.sum(query * crop, axis=1, dtype=np.float64) / _squared_lengths(query), -1, 1)
    return {part: round(float(cosine), 6) for part, cosine in zip(PARTS, cosines, strict=True)}


def multipliers_of(named: Mapping[str, float]) -> Multipliers:
    """The multipliers of all parts, the largest brought to 1; parts that are not named have the multiplier 1.

    Raises ValueError if a name is no part's, a weight is negative or not finite, or none is above 0.
    """
    unknown = sorted(named.keys() - set(PARTS))
    if unknown:
        raise ValueError(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    multipliers = np.array([named.get(part, 1.0) for part in PARTS], np.float64)
    if not np.isfinite(multipliers).all() or multipliers.min() < 0:
        raise ValueError("a weight is a finite number, 0 or more")
    if not multipliers.any():
        raise ValueError("nothing is left to compare: give at least one part a weight above 0")
    normalised: Multipliers = multipliers / multipliers.max()  # as the sum of huge ones is infinite
    return normalised


def shares_of(query: Parts, multipliers: Multipliers) -> Shares:
    """What the parts of a query count for: the shares that its checkpoint gives them, multiplied, brought to sum 1."""
    multiplied = multipliers * _squared_lengths(query)
    shares: Shares = multiplied / multiplied.sum()
    return shares


def weighted(query: Parts, shares: Shares) -> Parts:
    """The query whose dot product with an embedding is `weighted_similarity`.

    With the shares that its checkpoint gives the parts, this is the query itself.
    """
    scaled: Parts = (query * (shares / _squared_lengths(query))[:, np.newaxis]).astype(np.float32)
    return scaled


def weighted_similarity(parts: Mapping[str, float], shares: Shares) -> float:
    """The mean of the parts' cosines, by their shares."""
    return round(float(np.dot([parts[part] for part in PARTS], shares)), 6)


def _squared_lengths(query: Parts) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = np.maximum(np.sum(query * query, axis=1, dtype=np.float64), _TINY)
    return squared
