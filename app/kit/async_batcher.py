"""Batches concurrent requests of coroutines: look-ups, writes that share a transaction (group commit), searches."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class AsyncBatcher(Generic[Item, Result]):
    """Runs one batch at a time; items that come during a batch form the next one, first in, first out.

    If a batch raises an exception, each of its items is run again alone, so that an invalid item fails only its own
    caller. An exception that concerns all items, such as a database that is down, is raised to all callers at once.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        max_length: int,
        shared_errors: tuple[type[Exception], ...],
    ) -> None:
        """work: returns the result of each item, in their order.

        max_length: limit of the summed length of a batch's items; a longer item is run alone. shared_errors: exceptions
        that concern all items.
        """
        self._work = work
        self._max_length = max_length
        self._shared_errors = shared_errors
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def run(self, item: Item) -> Result:
        """The result of an item; it is run even if the caller is cancelled. Raises what `work` raises."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run_batches())
        return await future

    async def _run_batches(self) -> None:
        try:
            while self._waiting:
                await self._run_batch(self._next_batch())
        finally:
            self._running = None

    def _next_batch(self) -> list[tuple[Item, "asyncio.Future[Result]"]]:
        batch = [self._waiting.popleft()]
        length = len(batch[0][0])
        while self._waiting and length + len(self._waiting[0][0]) <= self._max_length:
            batch.append(self._waiting.popleft())
            length += len(batch[-1][0])
        return batch

    async def _run_batch(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, self._shared_errors):
                for request in batch:
                    await self._run_batch([request])
                return
            for _, future in batch:
                _settle(future, error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            _settle(future, result)


def _settle(future: "asyncio.Future[Result]", outcome: Result | Exception) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
