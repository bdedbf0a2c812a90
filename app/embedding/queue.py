"""The batch queue: crops of all requests go through one engine in full batches; a bad one fails alone."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.engine import Engine, EngineError
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.waiting import Batch, Priority, WaitingCrop, WaitingRoom
from model.architecture import PART_DIM, PARTS

__all__ = ["BatchQueue", "EmbedAdmitted", "Outcome", "Priority", "QueueClosed", "QueueFull"]

Outcome = NDArray[np.float32] | EngineError
"""The parts of one crop, `(8, 256)`, or why there are none."""

EmbedAdmitted = Callable[[Sequence[NDArray[np.uint8]]], Awaitable[list[Outcome]]]
"""Embeds crops `(height, width, 3)` for which places are reserved; the outcomes come in their order."""

_NOT_FINITE = "the engine gave numbers for this crop that are not finite"


class QueueFull(Exception):
    """So many crops wait that a request is not accepted; in about `retry_after` seconds there is room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many crops wait to be embedded: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class QueueClosed(Exception):
    """The queue accepts no more crops, because the service stops or because its engine died."""


class BatchQueue:
    """Gathers crops of many callers into batches for one engine, which runs in a thread of its own.

    There is no artificial delay: a batch is whatever waits when the engine becomes free (see WaitingRoom). At
    most `capacity` crops of each priority are accepted and not yet answered, so that bulk work never shuts
    searches out; a request larger than that is accepted when nothing else of its priority is there. A batch
    that fails is halved until the crop that it fails on stands alone, which also gets a batch through that was
    too large for the memory. An engine that hangs in a batch, or fails on a blank crop too, is in `trouble` until it
    works again; one that hangs is not waited for: all who wait are answered, and nobody else is accepted.

    All methods belong to the event loop that called `start`.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: EmbeddingMetrics,
        max_batch: int = 32,
        capacity: int = 1024,
        stall_seconds: float = 60.0,
    ) -> None:
        """`stall_seconds`: how long one batch may keep the engine busy before it counts as hanging."""
        self._engine = engine
        self._metrics = metrics
        self._capacity = capacity
        self._stall_seconds = stall_seconds
        self._size = engine.metadata.input.size
        self._room = WaitingRoom["_Request"](self._size, max_batch)
        metrics.queue_length.set_function(lambda: len(self._room))
        self._requests: set[_Request] = set()
        self._accepted = dict.fromkeys(Priority, 0)
        self._nothing_accepted = asyncio.Event()
        self._nothing_accepted.set()
        self._worker_ended = asyncio.Event()
        self._worker_ended.set()
        self._closed_because: str | None = "it has not been started"
        self._crops_per_second: float | None = None
        self._queue_seconds = {p: metrics.queue_seconds.labels(p.name.lower()) for p in Priority}
        self._busy_since: float | None = None
        self._blank = np.zeros((1, *self._size, 3), dtype=np.uint8)
        self._failing: str | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine's thread."""
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(self._watch())
        self._closed_because = None
        self._worker_ended.clear()
        threading.Thread(target=self._work, name="embedding-engine", daemon=True).start()

    async def stop(self, drain_seconds: float = 30.0) -> None:
        """Accept nothing more, finish what was accepted, and end the engine's thread.

        Whoever still waits after `drain_seconds` gets an EngineError.
        """
        if self._closed_because is None:
            self._closed_because = "the service is shutting down"
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._nothing_accepted.wait()
                self._room.close()
                await self._worker_ended.wait()
        self._room.close()
        self._fail_all(f"the engine did not finish within the {drain_seconds:.0f} s that it had to shut down")
        if self._watching is not None:
            self._watching.cancel()

    @property
    def trouble(self) -> str | None:
        """Why crops cannot be embedded now; None if they can."""
        return self._closed_because or self._hanging or self._failing

    @property
    def ended(self) -> bool:
        """Whether no crop will be embedded any more, not even an admitted one."""
        return self._worker_ended.is_set() or self._room.closed

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
        busy_since = self._busy_since
        if busy_since is None or time.monotonic() - busy_since < self._stall_seconds:
            return None
        return f"the engine hangs: it has been busy with one batch for more than {self._stall_seconds:g} s"

    async def _watch(self) -> None:
        """Answer those who wait for an engine that hangs, and try one that fails until it works again."""
        while True:
            await asyncio.sleep(min(1.0, self._stall_seconds / 4))
            if self._requests and self._hanging is not None:
                structlog.get_logger().critical("the engine hangs", requests=len(self._requests))
                self._fail_all(self._hanging)
            if self._failing is not None and not len(self._room):
                self._room.put([WaitingCrop(self._blank[0], Priority.SEARCH, _Request(1), 0)])

    def _account(self, count: int, priority: Priority) -> None:
        self._accepted[priority] += count
        if any(self._accepted.values()):
            self._nothing_accepted.clear()
        else:
            self._nothing_accepted.set()

    def _seconds_for(self, crops: int) -> float:
        if self._crops_per_second is None:
            return 1.0
        return float(max(1, math.ceil(crops / self._crops_per_second)))

    def _fail_all(self, reason: str) -> None:
        for request in self._requests:
            self._room.drop(request)
            request.fail(reason)

    def _deliver(self, crops: Sequence[WaitingCrop["_Request"]], outcomes: Sequence[Outcome]) -> None:
        self._room.prepare()
        for crop, outcome in zip(crops, outcomes, strict=True):
            crop.owner.settle(crop.position, outcome)

    def _end(self, death: BaseException | None) -> None:
        self._worker_ended.set()
        if death is not None:
            self._closed_because = f"the engine died of {death!r}; the service must be restarted"
            self._fail_all(self._closed_because)

    # What follows runs in the engine's thread.

    def _work(self) -> None:
        death: BaseException | None = None
        try:
            while self._serve_next():
                pass
        except BaseException as error:  # whatever ends this thread, those who wait must learn of it
            death = error
            structlog.get_logger().critical("the engine died", exc_info=error)
        finally:
            self._call_in_loop(lambda: self._end(death))

    def _serve_next(self) -> bool:
        """Serve a batch, of which nothing is kept; False when none comes any more."""
        batch = self._room.take()
        if batch is None:
            return False
        self._serve(batch)
        return True

    def _serve(self, batch: Batch["_Request"]) -> None:
        started = time.monotonic()
        self._busy_since = started
        for crop in batch.crops:
            self._queue_seconds[crop.priority].observe(started - crop.since)
        outcomes = self._outcomes(batch.pixels)
        seconds = time.monotonic() - started
        self._failing = self._failure_on_blank() if _all_failed(outcomes) else None
        self._busy_since = None
        self._call_in_loop(lambda: self._deliver(batch.crops, outcomes))
        self._metrics.batch_size.observe(len(outcomes))
        self._metrics.engine_seconds.observe(seconds)
        self._metrics.failed.inc(sum(isinstance(outcome, EngineError) for outcome in outcomes))
        speed = len(outcomes) / max(seconds, 1e-9)
        self._crops_per_second = 0.8 * (self._crops_per_second or speed) + 0.2 * speed

    def _outcomes(self, pixels: NDArray[np.uint8]) -> list[Outcome]:
        try:
            parts = self._engine.embed(pixels)
            if parts.shape != (len(pixels), len(PARTS), PART_DIM):
                raise EngineError(f"{len(pixels)} crops gave parts of shape {parts.shape}")
        except Exception as error:
            structlog.get_logger().error("the engine failed", crops=len(pixels), error=repr(error))
            if len(pixels) == 1:
                return [EngineError(f"the engine failed on this crop: {error!r}")]
            half = len(pixels) // 2
            return self._outcomes(pixels[:half]) + self._outcomes(pixels[half:])
        return [row if np.isfinite(row).all() else EngineError(_NOT_FINITE) for row in parts]

    def _failure_on_blank(self) -> str | None:
        """How the engine fails on a blank crop, if it does: so a broken engine is told from poisoned crops."""
        (outcome,) = self._outcomes(self._blank)
        return f"even with a blank crop, {outcome}" if isinstance(outcome, EngineError) else None

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(callback)


def _all_failed(outcomes: Sequence[Outcome]) -> bool:
    return all(isinstance(outcome, EngineError) for outcome in outcomes)


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
