"""The arithmetic of a search: one query of several embeddings, how alike each part of two is, what parts count for."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.architecture import PARTS

Parts = NDArray[np.float32]
"""An embedding `(8, 256)`: each part L2-normalised and divided by sqrt(8)."""

Weights = NDArray[np.float64]
"""What each part counts for, `(8,)`: 0 or more, of sum 1."""


def join_embeddings(embeddings: Sequence[Parts]) -> Parts:
    """The embedding of several pictures of one person: the mean of each part, brought back to its length.

    The field calls this multi-query (Zheng et al., ICCV 2015).
    """
    mean = np.mean(embeddings, axis=0)
    lengths = np.linalg.norm(mean, axis=1, keepdims=True) * np.sqrt(len(PARTS))
    joined: Parts = (mean / np.maximum(lengths, 1e-12)).astype(np.float32)
    return joined


def part_similarities(query: Parts, crop: Parts) -> dict[str, float]:
    """The cosine of each part by name; their mean is the similarity of the two embeddings.

    Stored embeddings are rounded to float16, which may lift the cosine of equal ones a hair above 1.
    """
    cosines = np.clip(np.sum(query * crop, axis=1) * len(PARTS), -1, 1)
    return {part: round(float(cosine), 6) for part, cosine in zip(PARTS, cosines, strict=True)}


def weights_of(named: Mapping[str, float]) -> Weights:
    """The weights of all parts, brought to the sum of 1; parts that are not named weigh 1.

    Raises ValueError if a name is no part's, a weight is negative or not finite, or none is above 0.
    """
    unknown = sorted(named.keys() - set(PARTS))
    if unknown:
        raise ValueError(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    weights = np.array([named.get(part, 1.0) for part in PARTS], np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("a weight is a finite number, 0 or more")
    if not weights.any():
        raise ValueError("nothing is left to compare: give at least one part a weight above 0")
    weights /= weights.max()  # first, as the sum of huge ones is infinite
    normalised: Weights = weights / weights.sum()
    return normalised


def weighted(query: Parts, weights: Weights) -> Parts:
    """The query whose dot product with an embedding is `weighted_similarity`; with equal weights, the query itself."""
    scaled: Parts = (query * (weights * len(PARTS))[:, np.newaxis]).astype(np.float32)
    return scaled


def weighted_similarity(parts: Mapping[str, float], weights: Weights) -> float:
    """The mean of the parts' cosines, by their weights."""
    return round(float(np.dot([parts[part] for part in PARTS], weights)), 6)
