"""The batch queue: full batches, bounded admission, and faults that affect only their callers."""

import asyncio
import random
import time
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry

from app.embedding.batch_queue import BatchQueue, QueueFull
from tests.app.embedding.queue_callers import BULK, SEARCH, busy_with, embedding, running, seen
from tests.app.embedding.scripted_engine import GIVES_NAN, RAISES, ScriptedEngine, crop


async def test_outcomes_come_in_the_order_of_the_crops() -> None:
    async with running(ScriptedEngine()) as queue:
        assert seen(await queue.embed([crop(value) for value in range(30)], BULK)) == list(range(30))
        assert await queue.embed([], BULK) == []


async def test_requests_share_batches_without_a_delay() -> None:
    engine = ScriptedEngine()

    async with running(engine) as queue:
        first = await busy_with(queue, engine)
        others = [embedding(queue, [value, value]) for value in range(1, 6)]
        await asyncio.sleep(0)
        engine.go.set()
        await asyncio.gather(first, *others)
    assert engine.batches == [[0], [1, 1, 2, 2, 3, 3, 4, 4], [5, 5]]


async def test_a_search_overtakes_bulk_work() -> None:
    engine = ScriptedEngine()

    async with running(engine) as queue:
        first = await busy_with(queue, engine)
        bulk = embedding(queue, range(1, 60))
        await asyncio.sleep(0)
        search = embedding(queue, [200], SEARCH)
        await asyncio.sleep(0)
        engine.go.set()
        await search
        await asyncio.gather(first, bulk)
    assert 200 in engine.batches[1]


async def test_crops_beyond_the_capacity_are_refused_with_retry_after() -> None:
    engine = ScriptedEngine()
    registry = CollectorRegistry()

    async with running(engine, capacity=10, registry=registry) as queue:
        first = await busy_with(queue, engine)
        accepted = embedding(queue, range(1, 10))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await queue.embed([crop(0)] * 3, BULK)
        assert refused.value.retry_after >= 1
        search = embedding(queue, [200], SEARCH)
        await asyncio.sleep(0)
        engine.go.set()
        assert seen(await search) == [200]
        await asyncio.gather(first, accepted)
        assert seen(await queue.embed([crop(7)] * 3, BULK)) == [7, 7, 7]
    assert registry.get_sample_value("passerby_embedding_rejected_total", {"reason": "queue-full"}) == 3


async def test_retry_after_follows_the_measured_speed() -> None:
    engine = ScriptedEngine()

    async with running(engine, capacity=10) as queue:
        first = await busy_with(queue, engine)
        await asyncio.sleep(0.5)  # one crop in half a second
        engine.go.set()
        await first
        second = await busy_with(queue, engine)
        full = embedding(queue, range(9))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await queue.embed([crop(0)] * 8, BULK)
        assert 4 <= refused.value.retry_after <= 6
        engine.go.set()
        await asyncio.gather(second, full)


async def test_a_request_larger_than_the_capacity_is_embedded_when_nothing_else_is_there() -> None:
    engine = ScriptedEngine()

    async with running(engine, capacity=10) as queue:
        assert seen(await queue.embed([crop(value) for value in range(50)], BULK)) == list(range(50))
        first = await busy_with(queue, engine)
        with pytest.raises(QueueFull):
            await queue.embed([crop(0)] * 50, BULK)
        engine.go.set()
        await first


async def test_admission_reserves_capacity_before_crops_are_decoded() -> None:
    async with running(ScriptedEngine(), capacity=10) as queue:
        with queue.admit(8, BULK) as embed:
            with pytest.raises(QueueFull):
                await queue.embed([crop(0)] * 3, BULK)
            assert seen(await embed([crop(1)] * 4)) == [1] * 4
            assert seen(await embed([crop(2)] * 4)) == [2] * 4
        assert len(await queue.embed([crop(0)] * 10, BULK)) == 10


async def test_crops_of_a_cancelled_caller_never_reach_the_engine() -> None:
    engine = ScriptedEngine()
    registry = CollectorRegistry()

    async with running(engine, capacity=20, registry=registry) as queue:
        first = await busy_with(queue, engine)
        leaves = embedding(queue, [100] * 15)
        stays = embedding(queue, [1, 2])
        await asyncio.sleep(0)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        more = embedding(queue, [3] * 15)  # the capacity is free again
        await asyncio.sleep(0)
        engine.go.set()
        assert seen(await stays) == [1, 2]
        await asyncio.gather(first, more)
    assert not any(100 in batch for batch in engine.batches)
    assert registry.get_sample_value("passerby_embedding_dropped_total") == 15


async def test_cancelling_a_caller_while_its_crop_is_embedded_affects_no_other() -> None:
    engine = ScriptedEngine()

    async with running(engine) as queue:
        leaves = await busy_with(queue, engine)
        stays = embedding(queue, [1])
        await asyncio.sleep(0)
        leaves.cancel()
        engine.go.set()
        assert seen(await stays) == [1]
        assert queue.trouble is None


@pytest.mark.parametrize("fault", [RAISES, GIVES_NAN])
async def test_a_poisoned_crop_fails_alone(fault: int) -> None:
    engine = ScriptedEngine()

    async with running(engine, max_batch=32) as queue:
        first = await busy_with(queue, engine)
        poisoned = embedding(queue, [1, fault, 2])
        neighbours = [embedding(queue, [value] * 3) for value in range(10, 18)]
        await asyncio.sleep(0)
        engine.go.set()
        assert seen(await poisoned) == [1, "error", 2]
        assert [seen(await neighbour) for neighbour in neighbours] == [[value] * 3 for value in range(10, 18)]
        await first
        assert queue.trouble is None


async def test_an_engine_that_always_raises_fails_every_crop_but_not_the_queue() -> None:
    async with running(ScriptedEngine()) as queue:
        assert seen(await queue.embed([crop(RAISES)] * 20, BULK)) == ["error"] * 20
        assert queue.trouble is None
        assert seen(await queue.embed([crop(1)], BULK)) == [1]


async def test_a_batch_too_large_for_the_memory_is_embedded_in_pieces() -> None:
    engine = ScriptedEngine(largest_batch=3)

    async with running(engine) as queue:
        assert seen(await queue.embed([crop(value) for value in range(8)], BULK)) == list(range(8))
    assert [len(batch) for batch in engine.batches] == [8, 4, 2, 2, 4, 2, 2]


async def test_a_crop_of_another_size_is_a_value_error() -> None:
    async with running(ScriptedEngine()) as queue:
        with pytest.raises(ValueError, match="the model takes"):
            await queue.embed([crop(1), crop(1)[:32]], BULK)
        assert seen(await queue.embed([crop(1)], BULK)) == [1]


async def test_every_crop_of_a_mixed_load_is_answered_once_and_correctly(seed: int) -> None:
    rng = random.Random(seed)
    engine = ScriptedEngine()
    outcomes = Counter[str]()

    async def client(queue: BatchQueue, number: int) -> None:
        for _ in range(10):
            values = [rng.choice((number, number, number, RAISES, GIVES_NAN)) for _ in range(rng.randrange(1, 20))]
            task = embedding(queue, values, rng.choice((SEARCH, BULK)))
            await asyncio.sleep(rng.choice((0, 0, 0.001)))
            if rng.random() < 0.2:
                task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                outcomes["left"] += 1
            elif isinstance(task.exception(), QueueFull):
                outcomes["refused"] += 1
            else:
                assert seen(task.result()) == [value if value < 200 else "error" for value in values]
                outcomes["answered"] += 1

    async with running(engine, capacity=60) as queue:
        async with asyncio.timeout(30):
            await asyncio.gather(*(client(queue, number) for number in range(20)))
    assert min(outcomes["answered"], outcomes["left"], outcomes["refused"]) > 5
    assert max(map(len, engine.batches)) <= 8


async def test_metrics_count_the_work_of_the_engine() -> None:
    registry = CollectorRegistry()

    def sample(name: str, **labels: str) -> float:
        value = registry.get_sample_value(name, labels)
        assert value is not None
        return value

    async with running(ScriptedEngine(), registry=registry) as queue:
        started = time.monotonic()
        await queue.embed([crop(1), crop(RAISES), crop(2)], SEARCH)
        await queue.stop()
        assert sample("passerby_embedding_engine_seconds_sum") <= time.monotonic() - started
    assert sample("passerby_embedding_batch_size_sum") == 3
    assert sample("passerby_embedding_queue_seconds_count", priority="search") == 3
    assert sample("passerby_embedding_failed_total") == 1
    assert sample("passerby_embedding_queue_length") == 0
