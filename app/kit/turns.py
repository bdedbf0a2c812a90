"""Work of several callers done at once, such as writes that share a transaction."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class Turns(Generic[Item, Result]):
    """Takes turns at some work: what is asked for while one turn lasts is done in the next, first come first served.

    A turn that fails is taken again for each of its callers alone, so that what one gave fails for that one only.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], most: int) -> None:
        """work: gives the result of each item, in their order. most: the items' summed length in a turn of several."""
        self._work = work
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._taking_turns: asyncio.Task[None] | None = None

    async def do(self, item: Item) -> Result:
        """What the work gives for an item, which is done even if its caller is cancelled. Raises what it raises."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._taking_turns is None:
            self._taking_turns = asyncio.create_task(self._take_turns())
        return await answer

    async def _take_turns(self) -> None:
        try:
            while self._waiting:
                await self._take_turn(self._next_turn())
        finally:
            self._taking_turns = None

    def _next_turn(self) -> list[tuple[Item, "asyncio.Future[Result]"]]:
        turn = [self._waiting.popleft()]
        size = len(turn[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= self._most:
            turn.append(self._waiting.popleft())
            size += len(turn[-1][0])
        return turn

    async def _take_turn(self, turn: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        try:
            results = await self._work([item for item, _ in turn])
        except Exception as error:
            if len(turn) == 1:
                _settle(turn[0][1], error)
            else:
                for alone in turn:
                    await self._take_turn([alone])
            return
        for (_, answer), result in zip(turn, results, strict=True):
            _settle(answer, result)


def _settle(answer: "asyncio.Future[Result]", outcome: Result | Exception) -> None:
    if answer.done():  # its caller has left
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
