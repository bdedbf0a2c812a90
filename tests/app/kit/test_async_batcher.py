"""Items that come during a batch form the next one, and an invalid item fails only its own caller."""

import asyncio
from collections.abc import Sequence

import pytest

from app.kit.async_batcher import AsyncBatcher


class Down(Exception):
    """An exception that concerns all items."""


class Work:
    """Returns words in capitals. It records the batches, waits while `go` is cleared, and fails on `bad` and `down`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, words: Sequence[str]) -> list[str]:
        self.batches.append(list(words))
        await self.go.wait()
        if "bad" in words:
            raise ValueError(f"bad among {len(words)}")
        if "down" in words:
            raise Down(f"down among {len(words)}")
        return [word.upper() for word in words]


def batcher_of(work: Work, max_length: int = 100) -> AsyncBatcher[str, str]:
    return AsyncBatcher(work, max_length, shared_errors=(Down,))


async def started(batcher: AsyncBatcher[str, str], *words: str) -> "list[asyncio.Task[str]]":
    tasks = [asyncio.create_task(batcher.run(word)) for word in words]
    await asyncio.sleep(0.01)
    return tasks


async def test_items_that_come_during_a_batch_share_the_next() -> None:
    work = Work()
    batcher = batcher_of(work)
    work.go.clear()
    tasks = await started(batcher, "a")
    tasks += await started(batcher, "b", "c", "d")
    work.go.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]
    assert await batcher.run("e") == "E"
    assert work.batches == [["a"], ["b", "c", "d"], ["e"]]


async def test_the_summed_length_of_a_batch_is_limited_but_a_single_item_may_be_longer() -> None:
    work = Work()
    batcher = batcher_of(work, max_length=4)
    work.go.clear()
    tasks = await started(batcher, "first")
    tasks += await started(batcher, "aa", "bb", "c", "longer", "d", "e")
    work.go.set()
    await asyncio.gather(*tasks)
    assert work.batches == [["first"], ["aa", "bb"], ["c"], ["longer"], ["d", "e"]]


async def test_an_invalid_item_fails_only_its_own_caller() -> None:
    work = Work()
    batcher = batcher_of(work)
    work.go.clear()
    tasks = await started(batcher, "a")
    tasks += await started(batcher, "b", "bad", "c")
    work.go.set()
    first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, second, fourth) == ("A", "B", "C")
    with pytest.raises(ValueError, match="bad among 1"):
        raise third if isinstance(third, Exception) else AssertionError(third)
    assert await batcher.run("d") == "D"


async def test_an_exception_that_concerns_all_items_is_raised_to_all_callers_at_once() -> None:
    work = Work()
    batcher = batcher_of(work)
    work.go.clear()
    tasks = await started(batcher, "a")
    tasks += await started(batcher, "b", "down", "c")
    work.go.set()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == "A"
    assert [str(error) for error in others] == ["down among 3"] * 3
    assert len(work.batches) == 2
    assert await batcher.run("d") == "D"


async def test_the_item_of_a_cancelled_caller_is_run_and_the_other_callers_get_their_results() -> None:

    work = Work()
    batcher = batcher_of(work)
    work.go.clear()
    first, second, third = await started(batcher, "a") + await started(batcher, "b", "c")
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await third == "C"
    assert work.batches == [["a"], ["b", "c"]]
    assert first.cancelled()
    assert second.cancelled()
