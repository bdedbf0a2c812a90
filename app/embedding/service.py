"""The embedding service: cuts crops out of frames, decodes their files and embeds them; each fails alone."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from app.embedding.batch_queue import BatchQueue, EmbedAdmitted
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError, Engines
from app.embedding.frames import Box, CropFile, cut
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.worker import Outcome
from app.kit.cores import available_cores
from model.decoding import (
    DecodedCrop,
    LargePicture,
    PictureError,
    PictureFacts,
    PictureLimits,
    RefuseLarge,
    decode,
)

FILES_PER_JOB = 8
"""Files for one job of a decoding thread: few enough to spread a request over threads, enough to be cheap."""


@dataclass(frozen=True, eq=False)
class EmbeddedCrop:
    """An embedded file. parts: `(8, 256)` float32, each L2-normalised times its weight."""

    facts: PictureFacts
    parts: NDArray[np.float32]


Result = EmbeddedCrop | PictureError | EngineError

_REFUSE = RefuseLarge()


class EmbeddingService:
    """Decodes files in threads and embeds them through the batch queue of a checkpoint's engines.

    metadata: the checkpoint's. runs_on: the runtime and the device, for display.
    """

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
        """`max_batch`, `capacity`, `stall_seconds`: see BatchQueue. `decode_threads`: for each priority; by default one
        a core.
        """
        self.metadata = engines.metadata
        self.runs_on = engines.runs_on
        self._limits = limits
        self._metrics = metrics
        self._max_batch = max_batch
        self._queue = BatchQueue(engines, metrics, max_batch, capacity, stall_seconds)
        threads = decode_threads or available_cores()
        self._decoders = {  # one for each priority, so a search does not wait for bulk decoding
            priority: ThreadPoolExecutor(threads, f"decode-{priority.name.lower()}") for priority in Priority
        }
        self._workers = len(engines.workers)
        self._batches_ahead = self._workers + math.ceil(threads * FILES_PER_JOB / max_batch)
        """Batches of one request in progress: one in each engine, and as many as occupy the decoding threads."""
        self._large_decoder = ThreadPoolExecutor(1, "decode-large")
        self._large_lock = threading.Lock()
        self._warm = False

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
        """Finish the accepted crops, for at most `drain_seconds`, then stop."""
        await self._queue.stop(drain_seconds)
        for decoder in (*self._decoders.values(), self._large_decoder):
            decoder.shutdown(wait=False)

    async def embed(self, contents: Sequence[bytes], priority: Priority) -> list[Result]:
        """Embed files; one outcome for each, in order: an unusable file fails alone.

        Files are decoded while others of the same request are in the engine, but only as far ahead as keeps the engine
        busy: a large request holds the pixels of a few batches. Raises QueueFull, QueueClosed.
        """
        ahead = asyncio.Semaphore(self._batches_ahead)
        with self._queue.admit(len(contents), priority) as embed:
            batches = [contents[i : i + self._max_batch] for i in range(0, len(contents), self._max_batch)]
            results = await asyncio.gather(*(self._embed_batch(batch, priority, embed, ahead) for batch in batches))
            return list(chain.from_iterable(results))

    async def cut(self, frame: bytes, boxes: Sequence[Box]) -> list[CropFile | PictureError]:
        """The files of a frame's boxes, to embed as bulk work, in order: an unusable box fails alone.

        Raises PictureError where the frame cannot be used; QueueFull, QueueClosed before it is decoded.
        """
        with self._queue.admit(len(boxes), Priority.BULK):
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._decoders[Priority.BULK], self._cut, frame, boxes, _REFUSE)
            except LargePicture:
                return await loop.run_in_executor(self._large_decoder, self._cut, frame, boxes, self._large_lock)

    async def _embed_batch(
        self, contents: Sequence[bytes], priority: Priority, embed: EmbedAdmitted, ahead: asyncio.Semaphore
    ) -> list[Result]:
        async with ahead:
            if self._queue.ended:
                return [EngineError("the service stopped before this file was embedded")] * len(contents)
            decoded = await self._decode_all(contents, priority)
            outcomes = iter(await embed([crop.pixels for crop in decoded if isinstance(crop, DecodedCrop)]))
            return [crop if isinstance(crop, PictureError) else _result(crop, next(outcomes)) for crop in decoded]

    async def _decode_all(self, contents: Sequence[bytes], priority: Priority) -> list[DecodedCrop | PictureError]:
        """Decode files; large pictures one after the other in a thread of their own, in which requests take turns."""
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._decoders[priority], self._decode_share, contents[i : i + FILES_PER_JOB])
            for i in range(0, len(contents), FILES_PER_JOB)
        ]
        decoded = list(chain.from_iterable(await asyncio.gather(*jobs)))
        return [
            await loop.run_in_executor(self._large_decoder, self._decode, content, self._large_lock)
            if crop is None
            else crop
            for content, crop in zip(contents, decoded, strict=True)
        ]

    def _decode_share(self, contents: Sequence[bytes]) -> list[DecodedCrop | PictureError | None]:
        """The outcome of each file; None of a large picture."""
        return [self._decode_small(content) for content in contents]

    def _decode_small(self, content: bytes) -> DecodedCrop | PictureError | None:
        try:
            return self._decode(content, _REFUSE)
        except LargePicture:
            return None

    def _decode(self, content: bytes, large: AbstractContextManager[object]) -> DecodedCrop | PictureError:
        began = time.perf_counter()
        outcome: DecodedCrop | PictureError
        try:
            outcome = decode(content, self._limits, self.metadata.input, large)
        except PictureError as error:
            self._metrics.rejected.labels(error.kind).inc()
            # A copy, as the traceback of the raised one references the files.
            outcome = PictureError(error.kind, str(error))
        self._metrics.decode_seconds.observe(time.perf_counter() - began)
        return outcome

    def _cut(
        self, frame: bytes, boxes: Sequence[Box], large: AbstractContextManager[object]
    ) -> list[CropFile | PictureError]:
        began = time.perf_counter()
        try:
            cuts = cut(frame, boxes, self._limits, large)
        except PictureError as error:
            self._metrics.rejected.labels(error.kind).inc(len(boxes))
            raise
        self._metrics.cut_seconds.observe(time.perf_counter() - began)
        for crop in cuts:
            if isinstance(crop, PictureError):
                self._metrics.rejected.labels(crop.kind).inc()
        return cuts


def _result(crop: DecodedCrop, outcome: Outcome) -> Result:
    return outcome if isinstance(outcome, EngineError) else EmbeddedCrop(crop.facts, outcome)
