"""The arithmetic of a search: a query of several embeddings, cosines of parts, weights of parts."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.architecture import PARTS

Parts = NDArray[np.float32]
"""An embedding `(8, 256)`: each part L2-normalised times its weight; the whole has norm 1.

The checkpoint sets the weights of the parts, so all embeddings of one model have the same norms of parts, except for
the rounding of stored ones to float16. The similarity of two embeddings is their dot product: the mean of the parts'
cosines, weighted by the parts' shares. The share of a part is the square of its weight.
"""

Multipliers = NDArray[np.float64]
"""The factors of the parts' shares in a search, `(8,)`: 0 or more, the largest 1."""

Shares = NDArray[np.float64]
"""The share of each part in a similarity, `(8,)`: 0 or more, of sum 1."""

_TINY = 1e-24
"""A lower bound for squared norms, against division by 0: parts of several pictures may cancel each other out."""


def join_embeddings(embeddings: Sequence[Parts]) -> Parts:
    """The embedding of several pictures of one person: the mean of each part, rescaled to that part's norm.

    This is multi-query (Zheng et al., ICCV 2015).
    """
    lengths = np.linalg.norm(embeddings, axis=2).mean(axis=0)
    mean = np.mean(embeddings, axis=0)
    scales = lengths / np.maximum(np.linalg.norm(mean, axis=1), np.sqrt(_TINY))
    joined: Parts = (mean * scales[:, np.newaxis]).astype(np.float32)
    return joined


def part_similarities(query: Parts, crop: Parts) -> dict[str, float]:
    """The cosine of each part by name; their mean, weighted by shares, is the similarity of the embeddings.

    The query's norms are used for both embeddings. The crop's norms differ only by its rounding to float16, and would
    move the mean away from the dot product by which an index ranks. Rounding may lift a cosine above 1; it is clipped.
    """
    cosines = np.clip(np.sum(query * crop, axis=1, dtype=np.float64) / _squared_lengths(query), -1, 1)
    return {part: round(float(cosine), 6) for part, cosine in zip(PARTS, cosines, strict=True)}


def multipliers_of(named: Mapping[str, float]) -> Multipliers:
    """The multipliers of all parts, 1 for parts without an entry, scaled so that the largest is 1.

    Raises ValueError if a name is not that of a part, a weight is negative or not finite, or none is above 0.
    """
    unknown = sorted(named.keys() - set(PARTS))
    if unknown:
        raise ValueError(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    multipliers = np.array([named.get(part, 1.0) for part in PARTS], np.float64)
    if not np.isfinite(multipliers).all() or multipliers.min() < 0:
        raise ValueError("a weight is a finite number, 0 or more")
    if not multipliers.any():
        raise ValueError("all weights are 0: give at least one part a weight above 0")
    normalised: Multipliers = multipliers / multipliers.max()  # avoids an infinite sum
    return normalised


def shares_of(query: Parts, multipliers: Multipliers) -> Shares:
    """The shares of a query's parts: the checkpoint's shares times the multipliers, normalised to sum 1."""
    multiplied = multipliers * _squared_lengths(query)
    shares: Shares = multiplied / multiplied.sum()
    return shares


def weighted(query: Parts, shares: Shares) -> Parts:
    """The query whose dot product with an embedding is `weighted_similarity`.

    With the checkpoint's own shares, this is the query itself.
    """
    scaled: Parts = (query * (shares / _squared_lengths(query))[:, np.newaxis]).astype(np.float32)
    return scaled


def weighted_similarity(parts: Mapping[str, float], shares: Shares) -> float:
    """The mean of the parts' cosines, weighted by shares."""
    return round(float(np.dot([parts[part] for part in PARTS], shares)), 6)


def _squared_lengths(query: Parts) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = np.maximum(np.sum(query * query, axis=1, dtype=np.float64), _TINY)
    return squared
