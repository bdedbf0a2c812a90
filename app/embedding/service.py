"""The embedding service: files in, embedded crops out, each file on its own."""

import asyncio
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from app.embedding.decoding import DecodedCrop, PictureError, PictureFacts, PictureLimits, decode
from app.embedding.engine import EngineError, Engines
from app.embedding.frames import Box, CutCrop, PixelBox, cut
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.queue import BatchQueue, EmbedAdmitted, Outcome, Priority
from app.kit.cores import available_cores
from model.checkpoint import CheckpointMetadata

FILES_PER_JOB = 8
"""How many files a decoding thread takes at once: few enough to share a request out, enough to be cheap."""


@dataclass(frozen=True, eq=False)
class EmbeddedCrop:
    """What a file holds and its crop's parts, `(8, 256)` float32, each L2-normalised times its weight."""

    facts: PictureFacts
    parts: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddedCut:
    """A crop cut out of a frame: its own file and what it holds, its pixels in the frame, and its parts `(8, 256)`."""

    content: bytes
    facts: PictureFacts
    box: PixelBox
    parts: NDArray[np.float32]


Result = EmbeddedCrop | PictureError | EngineError
CutResult = EmbeddedCut | PictureError | EngineError


class EmbeddingService:
    """Decodes files in threads and embeds them through the batch queue of a checkpoint's engines."""

    def __init__(
        self,
        engines: Engines,
        limits: PictureLimits,
        metrics: EmbeddingMetrics,
        max_batch: int = 32,
        capacity: int = 1024,
        decode_threads: int | None = None,
        stall_seconds: float = 60.0,
    ) -> None:
        """`max_batch`, `capacity`, `stall_seconds`: see BatchQueue. `decode_threads`: of each priority; by default one
        a core.
        """
        self._metadata = engines.metadata
        self._runs_on = engines.runs_on
        self._limits = limits
        self._metrics = metrics
        self._max_batch = max_batch
        self._queue = BatchQueue(engines, metrics, max_batch, capacity, stall_seconds)
        threads = decode_threads or available_cores()
        self._decoders = {  # two, so that a search does not wait until bulk work is decoded
            priority: ThreadPoolExecutor(threads, f"decode-{priority.name.lower()}") for priority in Priority
        }
        self._workers = len(engines.workers)
        self._batches_ahead = self._workers + math.ceil(threads * FILES_PER_JOB / max_batch)
        """Of one request: one in each engine, and as many as occupy the decoding threads."""
        self._one_large = threading.Lock()
        self._warm = False

    @property
    def metadata(self) -> CheckpointMetadata:
        """What the checkpoint says about itself."""
        return self._metadata

    @property
    def runs_on(self) -> str:
        """With what the engines compute and where, for people to read."""
        return self._runs_on

    @property
    def trouble(self) -> str | None:
        """Why files cannot be embedded now; None if they can: the engine is warm, alive and not shutting down."""
        return self._queue.trouble or (None if self._warm else "it is not warm yet")

    async def start(self) -> None:
        """Start the queue and run the engines with one crop, and with a full batch for each. Raises EngineError."""
        await self._queue.start()
        blank = np.zeros((*self.metadata.input.size, 3), dtype=np.uint8)
        for count in (1, self._max_batch * self._workers):
            for outcome in await self._queue.embed([blank] * count, Priority.SEARCH):
                if isinstance(outcome, EngineError):
                    await self.stop()
                    raise EngineError(f"{self.metadata.model_id} cannot be used: {outcome}")
        self._warm = True

    async def stop(self, drain_seconds: float = 30.0) -> None:
        """Finish what was accepted, for at most `drain_seconds`, then stop."""
        await self._queue.stop(drain_seconds)
        for decoder in self._decoders.values():
            decoder.shutdown(wait=False)

    async def embed(self, contents: Sequence[bytes], priority: Priority) -> list[Result]:
        """What has become of each file, in their order: one that cannot be used fails alone.

        Files are decoded while others of the same request are in the engine, but no further ahead than keeps it
        busy: a large request holds the pixels of a few batches. Raises QueueFull, QueueClosed.
        """
        ahead = asyncio.Semaphore(self._batches_ahead)
        with self._queue.admit(len(contents), priority) as embed:
            batches = [contents[i : i + self._max_batch] for i in range(0, len(contents), self._max_batch)]
            results = await asyncio.gather(*(self._embed_batch(batch, priority, embed, ahead) for batch in batches))
            return list(chain.from_iterable(results))

    async def embed_frame(self, frame: bytes, boxes: Sequence[Box], priority: Priority) -> list[CutResult]:
        """What has become of each box of a frame, in their order: one that cannot be used fails alone.

        The frame is decoded once, and only until its crops are cut out. Raises PictureError where it cannot be used;
        QueueFull, QueueClosed.
        """
        with self._queue.admit(len(boxes), priority) as embed:
            loop = asyncio.get_running_loop()
            cuts = await loop.run_in_executor(self._decoders[priority], self._cut, frame, boxes)
            outcomes = iter(await embed([one.decoded.pixels for one in cuts if isinstance(one, CutCrop)]))
            return [one if isinstance(one, PictureError) else _cut_result(one, next(outcomes)) for one in cuts]

    async def _embed_batch(
        self, contents: Sequence[bytes], priority: Priority, embed: EmbedAdmitted, ahead: asyncio.Semaphore
    ) -> list[Result]:
        async with ahead:
            if self._queue.ended:
                return [EngineError("the service ended before this file's turn came")] * len(contents)
            decoded = await self._decode_all(contents, priority)
            outcomes = iter(await embed([crop.pixels for crop in decoded if isinstance(crop, DecodedCrop)]))
            return [crop if isinstance(crop, PictureError) else _result(crop, next(outcomes)) for crop in decoded]

    async def _decode_all(self, contents: Sequence[bytes], priority: Priority) -> list[DecodedCrop | PictureError]:
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._decoders[priority], self._decode_some, contents[i : i + FILES_PER_JOB])
            for i in range(0, len(contents), FILES_PER_JOB)
        ]
        return list(chain.from_iterable(await asyncio.gather(*jobs)))

    def _decode_some(self, contents: Sequence[bytes]) -> list[DecodedCrop | PictureError]:
        return [self._decode(content) for content in contents]

    def _decode(self, content: bytes) -> DecodedCrop | PictureError:
        with self._metrics.decode_seconds.time():
            try:
                return decode(content, self._limits, self.metadata.input, self._one_large)
            except PictureError as error:
                self._metrics.rejected.labels(error.kind).inc()
                return PictureError(error.kind, str(error))  # the one that was raised keeps its frames, with the files

    def _cut(self, frame: bytes, boxes: Sequence[Box]) -> list[CutCrop | PictureError]:
        with self._metrics.cut_seconds.time():
            try:
                cuts = cut(frame, boxes, self._limits, self.metadata.input, self._one_large)
            except PictureError as error:
                self._metrics.rejected.labels(error.kind).inc(len(boxes))
                raise
        for one in cuts:
            if isinstance(one, PictureError):
                self._metrics.rejected.labels(one.kind).inc()
        return cuts


def _result(crop: DecodedCrop, outcome: Outcome) -> Result:
    return outcome if isinstance(outcome, EngineError) else EmbeddedCrop(crop.facts, outcome)


def _cut_result(one: CutCrop, outcome: Outcome) -> CutResult:
    if isinstance(outcome, EngineError):
        return outcome
    return EmbeddedCut(one.content, one.decoded.facts, one.box, outcome)
