"""Searches of concurrent callers in common calls of the index."""

import asyncio
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from app.index.port import Filter, IndexLost, IndexResult, IndexUnreachable, VectorIndex
from app.kit.async_batcher import AsyncBatcher

QUERIES_PER_CALL = 16
"""At most. FAISS compares up to 19 queries one by one; more would be compared by BLAS, with other rounding."""

_Key = tuple[VectorIndex, Filter, int]


class ConcurrentSearches:
    """Searches indexes for concurrent callers.

    While one call of an index runs, further queries with the same filter and `top_k` wait and are then made together:
    a call for several queries takes less time than several calls, and uses several cores. Other searches do not wait.
    """

    def __init__(self) -> None:
        # One for each kind of search that somebody waits for: their callers and their running tasks keep them.
        self._batchers = WeakValueDictionary[_Key, AsyncBatcher[NDArray[np.float32], IndexResult]]()

    async def search(
        self, index: VectorIndex, query: NDArray[np.float32], crop_filter: Filter, top_k: int
    ) -> IndexResult:
        """The result of `VectorIndex.search` for one query `(2048,)`. Raises what that raises."""
        key = index, crop_filter, top_k
        batcher = self._batchers.get(key)
        if batcher is None:
            batcher = AsyncBatcher(partial(_search, *key), QUERIES_PER_CALL, (IndexUnreachable, IndexLost))
            self._batchers[key] = batcher
        return await batcher.run(query[np.newaxis])


async def _search(
    index: VectorIndex, crop_filter: Filter, top_k: int, queries: Sequence[NDArray[np.float32]]
) -> Sequence[IndexResult]:
    return await asyncio.to_thread(index.search, np.concatenate(queries), crop_filter, top_k)
