"""An engine at work in a thread of its own: it takes batches, and what fails in them fails alone."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.engine import Engine, EngineError
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.waiting import Batch, Owner, Priority, WaitingCrop, WaitingRoom
from model.architecture import PART_DIM, PARTS

Outcome = NDArray[np.float32] | EngineError
"""The parts of one crop, `(8, 256)`, or why there are none."""

_NOT_FINITE = "the engine gave numbers for this crop that are not finite"


class EngineWorker(Generic[Owner]):
    """Runs an engine on what waits in a room, until the room is closed and empty; lone batches go to the `lone` engine.

    A batch that fails is halved until the crop that it fails on stands alone, which also gets a batch through that was
    too large for the memory. `deliver` and `end` are called in the engine's thread: with the outcomes of a batch, and
    once with what killed the engine, or None.
    """

    def __init__(
        self,
        engine: Engine,
        lone: Engine | None,
        room: WaitingRoom[Owner],
        metrics: EmbeddingMetrics,
        stall_seconds: float,
        deliver: Callable[[Sequence[WaitingCrop[Owner]], Sequence[Outcome]], None],
        end: Callable[[BaseException | None], None],
    ) -> None:
        """`stall_seconds`: how long one batch may keep the engine busy before it counts as hanging."""
        self.crops_per_second: float | None = None
        self.failing: str | None = None
        self._engine = engine
        self._lone = lone or engine
        self._room = room
        self._metrics = metrics
        self._stall_seconds = stall_seconds
        self._deliver = deliver
        self._end = end
        self._queue_seconds = {p: metrics.queue_seconds.labels(p.name.lower()) for p in Priority}
        self._busy_since: float | None = None
        self._blank = np.zeros((1, *engine.metadata.input.size, 3), dtype=np.uint8)

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def hanging(self) -> str | None:
        """That the engine hangs in a batch, if it does; any thread may ask."""
        busy_since = self._busy_since
        if busy_since is None or time.monotonic() - busy_since < self._stall_seconds:
            return None
        return f"the engine hangs: it has been busy with one batch for more than {self._stall_seconds:g} s"

    def _work(self) -> None:
        death: BaseException | None = None
        try:
            while self._serve_next():
                pass
        except BaseException as error:  # whatever ends this thread, those who wait must learn of it
            death = error
            structlog.get_logger().critical("the engine died", exc_info=error)
        finally:
            self._end(death)

    def _serve_next(self) -> bool:
        """Serve a batch, of which nothing is kept; False when none comes any more."""
        batch = self._room.take()
        if batch is None:
            return False
        self._serve(batch)
        return True

    def _serve(self, batch: Batch[Owner]) -> None:
        started = time.monotonic()
        self._busy_since = started
        for crop in batch.crops:
            self._queue_seconds[crop.priority].observe(started - crop.since)
        engine = self._lone if batch.lone else self._engine
        outcomes = outcomes_of(engine, batch.pixels)
        seconds = time.monotonic() - started
        self.failing = self._failure_on_blank(engine) if _all_failed(outcomes) else None
        self._busy_since = None
        self._deliver(batch.crops, outcomes)
        self._metrics.batch_size.observe(len(outcomes))
        self._metrics.engine_seconds.observe(seconds)
        self._metrics.failed.inc(sum(isinstance(outcome, EngineError) for outcome in outcomes))
        speed = len(outcomes) / max(seconds, 1e-9)
        self.crops_per_second = 0.8 * (self.crops_per_second or speed) + 0.2 * speed

    def _failure_on_blank(self, engine: Engine) -> str | None:
        """How an engine fails on a blank crop, if it does: so a broken engine is told from poisoned crops."""
        (outcome,) = outcomes_of(engine, self._blank)
        return f"even with a blank crop, {outcome}" if isinstance(outcome, EngineError) else None


def outcomes_of(engine: Engine, pixels: NDArray[np.uint8]) -> list[Outcome]:
    """What an engine makes of crops `(N, height, width, 3)`; one that it fails on fails alone."""
    try:
        parts = engine.embed(pixels)
        if parts.shape != (len(pixels), len(PARTS), PART_DIM):
            raise EngineError(f"{len(pixels)} crops gave parts of shape {parts.shape}")
    except Exception as error:
        structlog.get_logger().error("the engine failed", crops=len(pixels), error=repr(error))
        if len(pixels) == 1:
            return [EngineError(f"the engine failed on this crop: {error!r}")]
        half = len(pixels) // 2
        return outcomes_of(engine, pixels[:half]) + outcomes_of(engine, pixels[half:])
    return [row if np.isfinite(row).all() else EngineError(_NOT_FINITE) for row in parts]


def _all_failed(outcomes: Sequence[Outcome]) -> bool:
    return all(isinstance(outcome, EngineError) for outcome in outcomes)
