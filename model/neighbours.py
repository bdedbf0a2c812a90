"""Exact nearest neighbours by FAISS, in blocks: no matrix over all pairs is held in memory."""

import faiss
import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]


def nearest(queries: Features, gallery: Features, count: int) -> tuple[Features, NDArray[np.int64]]:
    """The `count` nearest of `(G, D)` to each of `(Q, D)`, nearest first: dot products and positions, `(Q, count)`."""
    similarities, positions = faiss.knn(queries, gallery, count, metric=faiss.METRIC_INNER_PRODUCT)
    return similarities, positions


def lowest_similarities(queries: Features, gallery: Features) -> Features:
    """`(Q,)`: the lowest dot product of each of `(Q, D)` with any of `(G, D)`."""
    opposite, _ = nearest(-queries, gallery, 1)
    return -opposite[:, 0]
