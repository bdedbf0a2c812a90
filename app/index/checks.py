"""Validation of embeddings and queries: 2048 finite numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.index.port import Addition, Change
from model.architecture import EMBEDDING_DIM


def refused_additions(changes: Sequence[Change]) -> set[Addition]:
    """The additions whose embeddings are not 2048 finite numbers."""
    return {
        change
        for change in changes
        if isinstance(change, Addition)
        and not (change.embedding.shape == (EMBEDDING_DIM,) and np.isfinite(change.embedding).all())
    }


def checked_query(query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The query as C-contiguous float32. Raises ValueError if it is not 2048 finite numbers."""
    query = np.ascontiguousarray(query, np.float32)
    if query.shape != (EMBEDDING_DIM,) or not np.isfinite(query).all():
        raise ValueError(f"a query is {EMBEDDING_DIM} finite numbers, not an array of shape {query.shape}")
    return query
