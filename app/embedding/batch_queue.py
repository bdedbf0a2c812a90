"""The batch queue: joins crops of concurrent requests into batches for the engines; a bad crop fails alone."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.crop_queue import CropQueue, Priority, QueuedCrop
from app.embedding.engine import EngineError, Engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.worker import EngineWorker, Outcome

EmbedAdmitted = Callable[[Sequence[NDArray[np.uint8]]], Awaitable[list[Outcome]]]
"""Embeds admitted crops `(height, width, 3)`; returns the outcomes in their order."""

_log = structlog.get_logger()


class QueueFull(Exception):
    """The queue is full and the request is refused; it has space in about `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many crops are queued: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class QueueClosed(Exception):
    """The queue accepts no more crops, because the service stops or its engine died."""


class BatchQueue:
    """Joins crops of concurrent callers into batches for the engines of one checkpoint, each in its own thread.

    There is no artificial delay: a batch is everything queued when a worker becomes free (see CropQueue). At most
    `capacity` crops of each priority are in the queue, so bulk work never keeps searches out; a larger request is
    accepted when no other crops of its priority are in the queue. An engine that hangs in a batch, or fails on a blank
    crop, sets `trouble` until it works again. While it hangs, all waiting callers get an error, and no crops are
    accepted. An engine that dies closes the queue.

    All methods must be called in the event loop that called `start`.
    """

    def __init__(
        self,
        engines: Engines,
        metrics: EmbeddingMetrics,
        max_batch: int = 32,
        capacity: int = 1024,
        stall_seconds: float = 60.0,
    ) -> None:
        """stall_seconds: how long one batch may take before the engine counts as hanging."""
        self._metrics = metrics
        self._capacity = capacity
        self._stall_seconds = stall_seconds
        self._size = engines.metadata.input.size
        self._crops = CropQueue["_Request"](max_batch, len(engines.workers))
        self._requests: set[_Request] = set()
        self._accepted = dict.fromkeys(Priority, 0)
        self._nothing_accepted = asyncio.Event()
        self._nothing_accepted.set()
        self._workers_ended = asyncio.Event()
        self._workers_ended.set()
        self._closed_because: str | None = "it has not been started"
        self._blank = np.zeros((*self._size, 3), dtype=np.uint8)
        self._workers = [
            EngineWorker(
                engine,
                engines.single_request,
                self._crops,
                metrics,
                stall_seconds,
                partial(self._call_in_loop, self._deliver),
                partial(self._call_in_loop, self._end),
            )
            for engine in engines.workers
        ]
        self._running = 0
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engines' threads."""
        self._loop = asyncio.get_running_loop()
        self._metrics.watch(self._waiting)
        self._watching = asyncio.create_task(self._watch())
        self._closed_because = None
        self._workers_ended.clear()
        self._running = len(self._workers)
        for number, worker in enumerate(self._workers):
            worker.start(f"embedding-engine-{number}")

    async def stop(self, drain_seconds: float = 30.0) -> None:
        """Accept no more crops, finish the accepted ones, and end the engines' threads.

        Callers that still wait after `drain_seconds` get an EngineError.
        """
        if self._closed_because is None:
            self._closed_because = "the service is shutting down"
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._nothing_accepted.wait()
                self._crops.close()
                await self._workers_ended.wait()
        self._crops.close()
        self._fail_all(f"the engine did not finish within the {drain_seconds:.0f} s that it had to shut down")
        self._metrics.forget(self._waiting)
        if self._watching is not None:
            self._watching.cancel()

    @property
    def trouble(self) -> str | None:
        """Why crops cannot be embedded now; None if they can."""
        return self._closed_because or self._first(lambda worker: worker.hanging or worker.failing)

    @property
    def ended(self) -> bool:
        """Whether no crop will be embedded any more, not even an admitted one."""
        return self._workers_ended.is_set() or self._crops.closed

    @contextmanager
    def admit(self, count: int, priority: Priority) -> Iterator[EmbedAdmitted]:
        """Reserve capacity for `count` crops during the context, before they are decoded.

        Yields a function that embeds these crops, in one or several calls, also after the queue was stopped.
        Raises QueueFull, QueueClosed.
        """
        refused = self._closed_because or self._hanging
        if refused is not None:
            raise QueueClosed(f"no crops are accepted: {refused}")
        accepted = self._accepted[priority]
        if accepted and accepted + count > self._capacity:
            self._metrics.rejected.labels("queue-full").inc(count)
            raise QueueFull(self._seconds_for(min(accepted, accepted + count - self._capacity)))
        self._account(count, priority)
        try:
            yield partial(self._embed, priority)
        finally:
            self._account(-count, priority)

    async def embed(self, crops: Sequence[NDArray[np.uint8]], priority: Priority) -> list[Outcome]:
        """The outcomes of crops `(height, width, 3)` uint8 in their order. Raises QueueFull, QueueClosed.

        Cancelling the call removes its crops from the queue.
        """
        with self.admit(len(crops), priority) as embed:
            return await embed(crops)

    async def _embed(self, priority: Priority, crops: Sequence[NDArray[np.uint8]]) -> list[Outcome]:
        for crop in crops:
            if crop.shape != (*self._size, 3) or crop.dtype != np.uint8:
                raise ValueError(f"a crop is {crop.dtype} {crop.shape}, the model takes uint8 {(*self._size, 3)}")
        if not crops:
            return []
        request = _Request(len(crops))
        self._requests.add(request)
        if self.ended:
            request.fail("the engine has ended")
        else:
            self._crops.put([QueuedCrop(crop, priority, request, i) for i, crop in enumerate(crops)])
        try:
            return await request.answer
        finally:
            self._requests.discard(request)
            if request.answer.cancelled():
                self._metrics.dropped.inc(self._crops.drop(request))

    @property
    def _hanging(self) -> str | None:
        return self._first(lambda worker: worker.hanging)

    def _first(self, trouble: Callable[[EngineWorker["_Request"]], str | None]) -> str | None:
        return next(filter(None, map(trouble, self._workers)), None)

    async def _watch(self) -> None:
        """Fail the callers of an engine that hangs, and retry a failing one with a blank crop until it works."""
        while True:
            await asyncio.sleep(min(1.0, self._stall_seconds / 4))
            if self._requests and self._hanging is not None:
                _log.critical("the engine hangs", requests=len(self._requests))
                self._fail_all(self._hanging)
            if any(worker.failing for worker in self._workers) and not len(self._crops):
                self._crops.put([QueuedCrop(self._blank, Priority.SEARCH, _Request(1), 0)])

    def _waiting(self) -> int:
        return len(self._crops)

    def _account(self, count: int, priority: Priority) -> None:
        self._accepted[priority] += count
        if any(self._accepted.values()):
            self._nothing_accepted.clear()
        else:
            self._nothing_accepted.set()

    def _seconds_for(self, crops: int) -> float:
        speed = sum(worker.crops_per_second or 0 for worker in self._workers)
        return float(max(1, math.ceil(crops / speed))) if speed else 1.0

    def _fail_all(self, reason: str) -> None:
        for request in self._requests:
            self._crops.drop(request)
            request.fail(reason)

    def _deliver(self, crops: Sequence[QueuedCrop["_Request"]], outcomes: Sequence[Outcome]) -> None:
        for crop, outcome in zip(crops, outcomes, strict=True):
            crop.owner.settle(crop.position, outcome)

    def _end(self, death: BaseException | None) -> None:
        self._running -= 1
        if not self._running:
            self._workers_ended.set()
        if death is not None:
            self._crops.close()
            self._closed_because = f"the engine died of {death!r}; the service must be restarted"
            self._fail_all(self._closed_because)

    def _call_in_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Schedule a callback in the event loop, from an engine's thread."""
        with suppress(RuntimeError):  # the loop is closed, so no caller waits
            self._loop.call_soon_threadsafe(callback, *arguments)


class _Request:
    """The crops of one call and their outcomes so far."""

    def __init__(self, count: int) -> None:
        self.answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._outcomes: dict[int, Outcome] = {}
        self._count = count

    def settle(self, position: int, outcome: Outcome) -> None:
        self._outcomes[position] = outcome
        if len(self._outcomes) == self._count and not self.answer.done():
            self.answer.set_result([self._outcomes[i] for i in range(self._count)])

    def fail(self, reason: str) -> None:
        """Settle all pending crops with an error."""
        for position in range(self._count):
            if position not in self._outcomes:
                self.settle(position, EngineError(reason))
