"""Requests of several threads are batched, and each thread gets its own result."""

import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from app.kit.thread_batcher import ThreadBatcher


class Work:
    """Multiplies items by ten; each batch blocks until `resume` is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.resume = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.refused: set[int] = set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.began.release()
        assert self.resume.acquire(timeout=10)
        if refused := self.refused & set(items):
            raise ValueError(f"refused: {refused}")
        return [10 * item for item in items]


def submit_waiting(
    threads: ThreadPoolExecutor, batcher: ThreadBatcher[int, int], *requests: tuple[str | None, int]
) -> list["Future[int]"]:
    """Submit requests one after the other, each when the one before waits."""
    futures = []
    for group, item in requests:
        waiting = len(batcher._waiting)
        futures.append(threads.submit(batcher.run, item, group))
        while len(batcher._waiting) == waiting:
            assert not futures[-1].done()
    return futures


def begin(threads: ThreadPoolExecutor, batcher: ThreadBatcher[int, int], work: Work, item: int) -> "Future[int]":
    """Submit a request that runs at once, in a batch of its own."""
    first = threads.submit(batcher.run, item, "a")
    assert work.began.acquire(timeout=10)
    return first


def test_waiting_requests_of_one_group_share_a_batch_in_their_order() -> None:
    work = Work()
    batcher = ThreadBatcher[int, int](work, threads=1, max_batch=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, batcher, work, 1)]
        futures += submit_waiting(threads, batcher, ("a", 2), ("b", 3), ("a", 4), ("a", 5), ("a", 6), ("b", 7))
        work.resume.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30, 40, 50, 60, 70]
    assert work.batches == [[1], [2, 4, 5], [3, 7], [6]]


def test_a_request_without_a_group_is_run_alone() -> None:
    work = Work()
    batcher = ThreadBatcher[int, int](work, threads=1, max_batch=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, batcher, work, 1)]
        futures += submit_waiting(threads, batcher, ("a", 2), (None, 3), ("a", 4), (None, 5))
        work.resume.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30, 40, 50]
    assert work.batches == [[1], [2, 4], [3], [5]]


def test_the_number_of_running_threads_is_limited() -> None:
    work = Work()
    batcher = ThreadBatcher[int, int](work, threads=2, max_batch=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, batcher, work, 1), begin(threads, batcher, work, 2)]
        futures += submit_waiting(threads, batcher, ("a", 3))
        assert not work.began.acquire(timeout=0.05)
        work.resume.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30]
        futures = [begin(threads, batcher, work, 4), begin(threads, batcher, work, 5)]  # both are free again
        assert [future.result(10) for future in futures] == [40, 50]


def test_an_invalid_item_fails_only_its_own_caller() -> None:
    work = Work()
    work.refused = {3}
    batcher = ThreadBatcher[int, int](work, threads=1, max_batch=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, batcher, work, 1)]
        futures += submit_waiting(threads, batcher, ("a", 2), ("a", 3), ("a", 4), ("a", 5))
        work.resume.release(20)
        with pytest.raises(ValueError, match="refused"):
            futures.pop(2).result(10)
        assert [future.result(10) for future in futures] == [10, 20, 40, 50]


def test_an_interrupt_in_a_batch_blocks_no_other_caller() -> None:
    def end(items: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    batcher = ThreadBatcher[int, int](end, threads=1, max_batch=3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            batcher.run(1, "a")


@pytest.fixture
def short_switch_interval() -> Iterator[None]:
    """The GIL switches threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_switch_interval")
def test_many_threads_each_get_their_own_results(seed: int) -> None:
    sizes: list[int] = []
    all_submitted = threading.Event()

    def work(items: Sequence[int]) -> list[int]:
        assert all_submitted.wait(60)
        sizes.append(len(items))
        assert len({item % 2 for item in items}) == 1, "the items are of one group"
        if random.random() < 0.1:
            raise RuntimeError
        return [10 * item for item in items]

    batcher = ThreadBatcher[int, int](work, threads=2, max_batch=4)

    def run(client: int) -> None:
        rng = random.Random(seed + client)
        for _ in range(200):
            item = rng.randrange(10**6)
            with suppress(RuntimeError):
                assert batcher.run(item, item % 2) == 10 * item

    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(run, number) for number in range(8)]
        while len(batcher._waiting) < 6:  # two run, and wait for the other six
            assert not any(client.done() for client in clients)
        all_submitted.set()

        for client in clients:
            client.result(60)
    assert max(sizes) > 1
    assert batcher._free_threads == 2
