"""The batch queue: crops of all requests go through the engines in full batches; a bad one fails alone."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.engine import EngineError, Engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.waiting import Priority, WaitingCrop, WaitingRoom
from app.embedding.worker import EngineWorker, Outcome

__all__ = ["BatchQueue", "EmbedAdmitted", "Outcome", "Priority", "QueueClosed", "QueueFull"]

EmbedAdmitted = Callable[[Sequence[NDArray[np.uint8]]], Awaitable[list[Outcome]]]
"""Embeds crops `(height, width, 3)` for which places are reserved; the outcomes come in their order."""


class QueueFull(Exception):
    """So many crops wait that a request is not accepted; in about `retry_after` seconds there is room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many crops wait to be embedded: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class QueueClosed(Exception):
    """The queue accepts no more crops, because the service stops or because its engine died."""


class BatchQueue:
    """Gathers crops of many callers into batches for engines of one checkpoint, each in a thread of its own.

    There is no artificial delay: a batch is whatever waits when an engine becomes free (see WaitingRoom). At
    most `capacity` crops of each priority are accepted and not yet answered, so that bulk work never shuts
    searches out; a request larger than that is accepted when nothing else of its priority is there. An engine
    that hangs in a batch, or fails on a blank crop too, is in `trouble` until it works again; one that hangs is not
    waited for: all who wait are answered, and nobody else is accepted. One that dies takes the queue with it.

    All methods belong to the event loop that called `start`.
    """

    def __init__(
        self,
        engines: Engines,
        metrics: EmbeddingMetrics,
        max_batch: int = 32,
        capacity: int = 1024,
        stall_seconds: float = 60.0,
    ) -> None:
        """`stall_seconds`: how long one batch may keep the engine busy before it counts as hanging."""
        self._metrics = metrics
        self._capacity = capacity
        self._stall_seconds = stall_seconds
        self._size = engines.metadata.input.size
        self._room = WaitingRoom["_Request"](self._size, max_batch, len(engines.workers))
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
                engines.lone,
                self._room,
                metrics,
                stall_seconds,
                lambda crops, outcomes: self._call_in_loop(lambda: self._deliver(crops, outcomes)),
                lambda death: self._call_in_loop(lambda: self._end(death)),
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
        """Accept nothing more, finish what was accepted, and end the engines' threads.

        Whoever still waits after `drain_seconds` gets an EngineError.
        """
        if self._closed_because is None:
            self._closed_because = "the service is shutting down"
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._nothing_accepted.wait()
                self._room.close()
                await self._workers_ended.wait()
        self._room.close()
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
        return self._workers_ended.is_set() or self._room.closed

    @contextmanager
    def admit(self, count: int, priority: Priority) -> Iterator[EmbedAdmitted]:
        """Reserve places for `count` crops for as long as the context lasts, before any work goes into them.

        Gives what embeds these crops, in one call or several, also when the queue is stopped meanwhile.
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

        A caller that is cancelled takes its crops out of the queue.
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
            self._fail_all("the engine has ended")
        else:
            self._room.put([WaitingCrop(crop, priority, request, i) for i, crop in enumerate(crops)])
        try:
            return await request.answer
        finally:
            self._requests.discard(request)
            if request.answer.cancelled():
                self._metrics.dropped.inc(self._room.drop(request))

    @property
    def _hanging(self) -> str | None:
        return self._first(lambda worker: worker.hanging)

    def _first(self, trouble: Callable[[EngineWorker["_Request"]], str | None]) -> str | None:
        return next(filter(None, map(trouble, self._workers)), None)

    async def _watch(self) -> None:
        """Answer those who wait for an engine that hangs, and try one that fails until it works again."""
        while True:
            await asyncio.sleep(min(1.0, self._stall_seconds / 4))
            if self._requests and self._hanging is not None:
                structlog.get_logger().critical("the engine hangs", requests=len(self._requests))
                self._fail_all(self._hanging)
            if any(worker.failing for worker in self._workers) and not len(self._room):
                self._room.put([WaitingCrop(self._blank, Priority.SEARCH, _Request(1), 0)])

    def _waiting(self) -> int:
        return len(self._room)

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
            self._room.drop(request)
            request.fail(reason)

    def _deliver(self, crops: Sequence[WaitingCrop["_Request"]], outcomes: Sequence[Outcome]) -> None:
        self._room.prepare()
        for crop, outcome in zip(crops, outcomes, strict=True):
            crop.owner.settle(crop.position, outcome)

    def _end(self, death: BaseException | None) -> None:
        self._running -= 1
        if not self._running:
            self._workers_ended.set()
        if death is not None:
            self._room.close()
            self._closed_because = f"the engine died of {death!r}; the service must be restarted"
            self._fail_all(self._closed_because)

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        """From an engine's thread."""
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(callback)


class _Request:
    """Crops of one call and what has become of them so far."""

    def __init__(self, count: int) -> None:
        self.answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._outcomes: dict[int, Outcome] = {}
        self._count = count

    def settle(self, position: int, outcome: Outcome) -> None:
        self._outcomes[position] = outcome
        if len(self._outcomes) == self._count and not self.answer.done():
            self.answer.set_result([self._outcomes[i] for i in range(self._count)])

    def fail(self, reason: str) -> None:
        """Settle what is still open."""
        for position in range(self._count):
            if position not in self._outcomes:
                self.settle(position, EngineError(reason))
