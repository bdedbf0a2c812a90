"""Concurrent searches share calls of an index."""

import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest
from numpy.typing import NDArray

from app.index.concurrent import QUERIES_PER_CALL, ConcurrentSearches
from app.index.faiss_index import FaissIndex
from app.index.port import Filter, IndexResult
from tests.app.index.index_factories import ANY, MODEL, crop, keys, query_for
from tests.app.waiting import eventually

HALL = Filter(camera_ids=frozenset({"hall"}))


class HeldIndex(FaissIndex):
    """Records the size of each call, which waits for `go`."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.calls: list[tuple[int, Filter]] = []
        self.called = threading.Semaphore(0)
        self.go = threading.Event()

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[IndexResult]:
        self.calls.append((len(queries), crop_filter))
        self.called.release()
        assert self.go.wait(60)
        return super().search(queries, crop_filter, top_k)


@pytest.fixture
def index() -> HeldIndex:
    index = HeldIndex()
    index.apply([crop(key) for key in range(1, 60)])
    return index


async def asked(
    searches: ConcurrentSearches, index: HeldIndex, *seeds: int, crop_filter: Filter = ANY
) -> list[asyncio.Task[IndexResult]]:
    """Searches that have begun or wait."""
    tasks = [asyncio.create_task(searches.search(index, query_for(seed), crop_filter, 3)) for seed in seeds]
    await asyncio.sleep(0)
    return tasks


async def test_queries_that_come_during_a_call_make_the_next_one(index: HeldIndex) -> None:
    searches = ConcurrentSearches()
    first = await asked(searches, index, 1)
    await asyncio.to_thread(index.called.acquire)
    others = await asked(searches, index, *range(2, 4 + QUERIES_PER_CALL))
    index.go.set()
    results = await asyncio.gather(*first, *others)
    assert [keys(result)[0] for result in results] == list(range(1, 4 + QUERIES_PER_CALL))
    assert [size for size, _ in index.calls] == [1, QUERIES_PER_CALL, 2]


async def test_clients_that_search_again_at_once_share_calls_again(index: HeldIndex) -> None:
    searches, rounds = ConcurrentSearches(), 5
    index.go.set()

    async def client(seed: int) -> None:
        for _ in range(rounds):
            assert keys(await searches.search(index, query_for(seed), ANY, 3))[0] == seed

    await asyncio.gather(*(client(seed) for seed in range(1, 9)))
    assert [size for size, _ in index.calls] == [8] * rounds


async def test_searches_with_another_filter_do_not_wait(index: HeldIndex) -> None:
    searches = ConcurrentSearches()
    tasks = await asked(searches, index, 1) + await asked(searches, index, 2, crop_filter=HALL)
    for _ in tasks:
        await asyncio.to_thread(index.called.acquire)
    index.go.set()
    everywhere, in_the_hall = await asyncio.gather(*tasks)
    assert keys(everywhere)[0] == 1
    assert keys(in_the_hall) == []
    assert len(index.calls) == 2


async def test_an_unusable_query_fails_alone(index: HeldIndex) -> None:
    searches = ConcurrentSearches()
    first = await asked(searches, index, 1)
    await asyncio.to_thread(index.called.acquire)
    others = await asked(searches, index, 2, 3)
    bad = asyncio.create_task(searches.search(index, np.full(2048, np.nan, np.float32), ANY, 3))
    await asyncio.sleep(0)
    index.go.set()
    results = await asyncio.gather(*first, *others, bad, return_exceptions=True)
    assert isinstance(results[-1], ValueError)
    assert [keys(result)[0] for result in results[:-1] if isinstance(result, IndexResult)] == [1, 2, 3]


async def test_a_search_that_is_cancelled_disturbs_no_other(index: HeldIndex) -> None:
    searches = ConcurrentSearches()
    (first,) = await asked(searches, index, 1)
    await asyncio.to_thread(index.called.acquire)
    second, third = await asked(searches, index, 2, 3)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    index.go.set()
    assert keys(await third)[0] == 3
    (fourth,) = await asked(searches, index, 4)
    assert keys(await fourth)[0] == 4


@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_kept_of_searches_that_have_ended(cancelled: bool) -> None:
    searches, index = ConcurrentSearches(), HeldIndex()
    index.apply([crop(1)])
    known = weakref.ref(index)
    tasks = await asked(searches, index, 1, 2)
    await asyncio.to_thread(index.called.acquire)
    for task in tasks:
        if cancelled:
            task.cancel()
    index.go.set()
    await asyncio.wait(tasks)
    del index, task, tasks
    await eventually(lambda: gc.collect() >= 0 and known() is None)
