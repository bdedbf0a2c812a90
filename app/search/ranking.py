"""The arithmetic of a search: one query of several embeddings, and how alike each part of two embeddings is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.architecture import PARTS

Parts = NDArray[np.float32]
"""An embedding `(8, 256)`: each part L2-normalised and divided by sqrt(8)."""


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
