"""A running batch queue, and callers of it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from app.embedding.batch_queue import BatchQueue
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError, Engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.worker import Outcome
from tests.app.embedding.scripted_engine import ScriptedEngine, crop
from tests.app.waiting import eventually

SEARCH, BULK = Priority.SEARCH, Priority.BULK


@asynccontextmanager
async def running(
    engine: ScriptedEngine,
    max_batch: int = 8,
    capacity: int = 100,
    stall_seconds: float = 60.0,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[BatchQueue]:
    metrics = EmbeddingMetrics(registry or CollectorRegistry())
    queue = BatchQueue(Engines([engine]), metrics, max_batch, capacity, stall_seconds)
    await queue.start()
    try:
        yield queue
    finally:
        engine.go.set()
        await queue.stop()


def embedding(queue: BatchQueue, values: Iterable[int], priority: Priority = BULK) -> asyncio.Task[list[Outcome]]:
    """A running request."""
    return asyncio.create_task(queue.embed([crop(value) for value in values], priority))


def seen(outcomes: Iterable[Outcome]) -> list[int | str]:
    """The value that the engine gave for each crop, or `error`."""
    return ["error" if isinstance(outcome, EngineError) else int(outcome[7, 255]) for outcome in outcomes]


async def busy_with(queue: BatchQueue, engine: ScriptedEngine, value: int = 0) -> asyncio.Task[list[Outcome]]:
    """Keep the engine busy with one crop until `engine.go` is set."""
    engine.go.clear()
    task = embedding(queue, [value])
    await eventually(engine.busy.is_set)
    return task
