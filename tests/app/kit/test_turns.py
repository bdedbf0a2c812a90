"""What is asked for while a turn lasts is done in the next one, and what fails fails for its caller alone."""

import asyncio
from collections.abc import Sequence

import pytest

from app.kit.turns import Turns


class Work:
    """Gives words back in capitals. It remembers the turns, waits while `go` is cleared, and fails on `bad`."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, words: Sequence[str]) -> list[str]:
        self.turns.append(list(words))
        await self.go.wait()
        if "bad" in words:
            raise ValueError(f"bad among {len(words)}")
        return [word.upper() for word in words]


async def begun(turns: Turns[str, str], *words: str) -> "list[asyncio.Task[str]]":
    tasks = [asyncio.create_task(turns.do(word)) for word in words]
    await asyncio.sleep(0.01)
    return tasks


def test_all_that_comes_while_a_turn_lasts_shares_the_next() -> None:
    async def scenario() -> None:
        work = Work()
        turns = Turns(work, most=100)
        work.go.clear()
        tasks = await begun(turns, "a")
        tasks += await begun(turns, "b", "c", "d")
        work.go.set()
        assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]
        assert await turns.do("e") == "E"
        assert work.turns == [["a"], ["b", "c", "d"], ["e"]]

    asyncio.run(scenario())


def test_a_turn_is_bounded_by_the_length_of_its_items_but_takes_one_of_any_length() -> None:
    async def scenario() -> None:
        work = Work()
        turns = Turns(work, most=4)
        work.go.clear()
        tasks = await begun(turns, "first")
        tasks += await begun(turns, "aa", "bb", "c", "longer", "d", "e")
        work.go.set()
        await asyncio.gather(*tasks)
        assert work.turns == [["first"], ["aa", "bb"], ["c"], ["longer"], ["d", "e"]]

    asyncio.run(scenario())


def test_what_fails_fails_for_its_caller_alone() -> None:
    async def scenario() -> None:
        work = Work()
        turns = Turns(work, most=100)
        work.go.clear()
        tasks = await begun(turns, "a")
        tasks += await begun(turns, "b", "bad", "c")
        work.go.set()
        first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, second, fourth) == ("A", "B", "C")
        with pytest.raises(ValueError, match="bad among 1"):
            raise third if isinstance(third, Exception) else AssertionError(third)
        assert await turns.do("d") == "D"

    asyncio.run(scenario())


def test_the_item_of_a_caller_that_is_cancelled_is_done_and_the_others_get_theirs() -> None:
    async def scenario() -> None:
        work = Work()
        turns = Turns(work, most=100)
        work.go.clear()
        first, second, third = await begun(turns, "a") + await begun(turns, "b", "c")
        first.cancel()
        second.cancel()
        await asyncio.sleep(0)
        work.go.set()
        assert await third == "C"
        assert work.turns == [["a"], ["b", "c"]]
        assert first.cancelled()
        assert second.cancelled()

    asyncio.run(scenario())
