"""What threads ask is answered for several of them together, and never mixed up."""

import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from app.kit.together import Together


class Work:
    """Answers with ten times what it is asked, and holds back whoever answers until it is let go on."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.goes_on = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.refused: set[int] = set()

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.done.append(list(asked))
        self.began.release()
        assert self.goes_on.acquire(timeout=10)
        if refused := self.refused & set(asked):
            raise ValueError(f"refused: {refused}")
        return [10 * one for one in asked]


def asking(
    threads: ThreadPoolExecutor, together: Together[int, int], *questions: tuple[str | None, int]
) -> list["Future[int]"]:
    """Ask one after the other, each once the one before it waits."""
    futures = []
    for kind, asked in questions:
        waiting = len(together._waiting)
        futures.append(threads.submit(together.ask, asked, kind))
        while len(together._waiting) == waiting:
            assert not futures[-1].done()
    return futures


def begin(threads: ThreadPoolExecutor, together: Together[int, int], work: Work, asked: int) -> "Future[int]":
    """Ask what is answered at once, by itself."""
    first = threads.submit(together.ask, asked, "a")
    assert work.began.acquire(timeout=10)
    return first


def test_what_comes_meanwhile_is_answered_together_in_its_order_and_of_one_kind() -> None:
    work = Work()
    together = Together[int, int](work, threads=1, most=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, together, work, 1)]
        futures += asking(threads, together, ("a", 2), ("b", 3), ("a", 4), ("a", 5), ("a", 6), ("b", 7))
        work.goes_on.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30, 40, 50, 60, 70]
    assert work.done == [[1], [2, 4, 5], [3, 7], [6]]


def test_what_is_to_be_alone_is_alone() -> None:
    work = Work()
    together = Together[int, int](work, threads=1, most=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, together, work, 1)]
        futures += asking(threads, together, ("a", 2), (None, 3), ("a", 4), (None, 5))
        work.goes_on.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30, 40, 50]
    assert work.done == [[1], [2, 4], [3], [5]]


def test_as_many_threads_answer_at_once_as_may() -> None:
    work = Work()
    together = Together[int, int](work, threads=2, most=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, together, work, 1), begin(threads, together, work, 2)]
        futures += asking(threads, together, ("a", 3))
        assert not work.began.acquire(timeout=0.05)
        work.goes_on.release(10)
        assert [future.result(10) for future in futures] == [10, 20, 30]
        futures = [begin(threads, together, work, 4), begin(threads, together, work, 5)]  # both are free again
        assert [future.result(10) for future in futures] == [40, 50]


def test_what_fails_for_one_fails_for_that_one_alone() -> None:
    work = Work()
    work.refused = {3}
    together = Together[int, int](work, threads=1, most=3)
    with ThreadPoolExecutor(8) as threads:
        futures = [begin(threads, together, work, 1)]
        futures += asking(threads, together, ("a", 2), ("a", 3), ("a", 4), ("a", 5))
        work.goes_on.release(20)
        with pytest.raises(ValueError, match="refused"):
            futures.pop(2).result(10)
        assert [future.result(10) for future in futures] == [10, 20, 40, 50]


def test_what_ends_the_thread_that_answers_leaves_nobody_waiting() -> None:
    def end(asked: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    together = Together[int, int](end, threads=1, most=3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            together.ask(1, "a")


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_turns")
def test_many_threads_each_get_their_own_answers() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    sizes: list[int] = []
    all_ask = threading.Event()

    def answer(asked: Sequence[int]) -> list[int]:
        assert all_ask.wait(60)
        sizes.append(len(asked))
        assert len({one % 2 for one in asked}) == 1, "of one kind"
        if random.random() < 0.1:
            raise RuntimeError
        return [10 * one for one in asked]

    together = Together[int, int](answer, threads=2, most=4)

    def ask(client: int) -> None:
        rng = random.Random(seed + client)
        for _ in range(200):
            asked = rng.randrange(10**6)
            with suppress(RuntimeError):
                assert together.ask(asked, asked % 2) == 10 * asked

    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(ask, number) for number in range(8)]
        while len(together._waiting) < 6:  # two answer, and wait for the other six
            assert not any(client.done() for client in clients)
        all_ask.set()
        for client in clients:
            client.result(60)
    assert max(sizes) > 1
    assert together._free == 2
