"""A thread that runs an engine on batches of the queue; a bad crop fails alone."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.crop_queue import Batch, CropQueue, Owner, Priority, QueuedCrop
from app.embedding.engine import Engine, EngineError
from app.embedding.metrics import EmbeddingMetrics
from model.architecture import PART_DIM, PARTS

_log = structlog.get_logger()

Outcome = NDArray[np.float32] | EngineError
"""The parts `(8, 256)` of one crop, or the error."""

_NOT_FINITE = "the engine gave numbers for this crop that are not finite"


class EngineWorker(Generic[Owner]):
    """Runs an engine on the batches of a queue, until the queue is closed and empty.

    A batch that is single goes to the single-request engine. A batch that fails is halved recursively until the bad
    crop is alone; this also handles a batch that was too large for the memory. `deliver` and `end` are called in the
    worker's thread: with the outcomes of each batch, and once at the end with the fatal exception, or None.
    """

    def __init__(
        self,
        engine: Engine,
        single_request: Engine | None,
        crops: CropQueue[Owner],
        metrics: EmbeddingMetrics,
        stall_seconds: float,
        deliver: Callable[[Sequence[QueuedCrop[Owner]], Sequence[Outcome]], None],
        end: Callable[[BaseException | None], None],
    ) -> None:
        """stall_seconds: how long one batch may take before the engine counts as hanging."""
        self.crops_per_second: float | None = None
        self.failing: str | None = None
        self._engine = engine
        self._single_request = single_request or engine
        self._crops = crops
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
        """The error message where the engine hangs in a batch, else None; any thread may call."""
        busy_since = self._busy_since
        if busy_since is None or time.monotonic() - busy_since < self._stall_seconds:
            return None
        return f"the engine hangs: it has been busy with one batch for more than {self._stall_seconds:g} s"

    def _work(self) -> None:
        death: BaseException | None = None
        try:
            while self._serve_next():
                pass
        except BaseException as error:  # waiting callers must get an error, whatever ends this thread
            death = error
            _log.critical("the engine died", exc_info=error)
        finally:
            self._end(death)

    def _serve_next(self) -> bool:
        """Serve one batch, and drop all references to it; False when the queue is closed and empty."""
        batch = self._crops.take()
        if batch is None:
            return False
        self._serve(batch)
        return True

    def _serve(self, batch: Batch[Owner]) -> None:
        started = time.monotonic()
        self._busy_since = started
        for crop in batch.crops:
            self._queue_seconds[crop.priority].observe(started - crop.since)
        engine = self._single_request if batch.single else self._engine
        outcomes = outcomes_of(engine, batch.pixels())
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
        """The error of an engine on a blank crop, or None. It distinguishes a broken engine from bad crops."""
        (outcome,) = outcomes_of(engine, self._blank)
        return f"even with a blank crop, {outcome}" if isinstance(outcome, EngineError) else None


def outcomes_of(engine: Engine, pixels: NDArray[np.uint8]) -> list[Outcome]:
    """An engine's outcomes for crops `(N, height, width, 3)`; a crop that it fails on fails alone."""
    try:
        parts = engine.embed(pixels)
        if parts.shape != (len(pixels), len(PARTS), PART_DIM):
            raise EngineError(f"{len(pixels)} crops gave parts of shape {parts.shape}")
    except Exception as error:
        _log.error("the engine failed", crops=len(pixels), error=repr(error))
        if len(pixels) == 1:
            return [EngineError(f"the engine failed on this crop: {error!r}")]
        half = len(pixels) // 2
        return outcomes_of(engine, pixels[:half]) + outcomes_of(engine, pixels[half:])
    return [row if np.isfinite(row).all() else EngineError(_NOT_FINITE) for row in parts]


def _all_failed(outcomes: Sequence[Outcome]) -> bool:
    return all(isinstance(outcome, EngineError) for outcome in outcomes)
