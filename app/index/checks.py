"""Validation of embeddings and queries: 2048 finite numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.index.port import Addition, Change
from model.architecture import EMBEDDING_DIM


def refused_keys(changes: Sequence[Change]) -> frozenset[int]:
    """The keys of additions whose embeddings are not 2048 finite numbers."""
    return frozenset(
        change.key
        for change in changes
        if isinstance(change, Addition)
        and not (change.embedding.shape == (EMBEDDING_DIM,) and np.isfinite(change.embedding).all())
    )


def checked_queries(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The queries as C-contiguous float32. Raises ValueError if they are not rows of 2048 finite numbers."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != EMBEDDING_DIM or not np.isfinite(queries).all():
        raise ValueError(f"queries are rows of {EMBEDDING_DIM} finite numbers, not an array of shape {queries.shape}")
    return queries
