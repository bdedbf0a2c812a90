"""Exact nearest neighbours through FAISS, which searches in blocks, so that no matrix over all pairs is held."""

import faiss
import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]


def nearest(queries: Features, gallery: Features, count: int) -> tuple[Features, NDArray[np.int64]]:
    """Similarities and positions `(Q, count)` of the most similar of `(G, D)` to each of `(Q, D)`, nearest first."""
    similarities, positions = faiss.knn(queries, gallery, count, metric=faiss.METRIC_INNER_PRODUCT)
    return similarities, positions


def lowest_similarities(queries: Features, gallery: Features) -> Features:
    """`(Q,)`: the similarity of the least similar of `(G, D)` to each of `(Q, D)`."""
    opposite, _ = nearest(-queries, gallery, 1)
    return -opposite[:, 0]
