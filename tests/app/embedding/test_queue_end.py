"""The batch queue when it is stopped, and when its engine dies, hangs or always fails: every caller gets an answer."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from app.embedding.batch_queue import BatchQueue, QueueClosed
from app.embedding.engine import Engines
from app.embedding.metrics import EmbeddingMetrics
from tests.app.embedding.queue_callers import BULK, SEARCH, busy_with, embedding, running, seen
from tests.app.embedding.scripted_engine import DIES, ScriptedEngine, crop
from tests.app.waiting import eventually


async def test_when_the_engine_dies_all_waiting_callers_get_an_error() -> None:
    engine = ScriptedEngine()

    async with running(engine) as queue:
        dying = await busy_with(queue, engine, DIES)
        waiting = [embedding(queue, [value] * 10) for value in range(5)]
        with queue.admit(1, SEARCH) as embed:
            await asyncio.sleep(0)
            engine.go.set()
            async with asyncio.timeout(10):
                assert seen(await dying) == ["error"]
                for task in waiting:
                    assert seen(await task) == ["error"] * 10
                assert queue.trouble is not None
                assert seen(await embed([crop(1)])) == ["error"]  # accepted before it died
        with pytest.raises(QueueClosed, match="died"):
            await queue.embed([crop(1)], SEARCH)


async def test_stopping_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    engine = ScriptedEngine()

    async with running(engine) as queue:
        accepted = [await busy_with(queue, engine), *(embedding(queue, [value] * 5) for value in range(1, 9))]
        await asyncio.sleep(0)
        with queue.admit(2, BULK) as embed:
            stopping = asyncio.create_task(queue.stop())
            await asyncio.sleep(0)
            assert queue.trouble is not None
            with pytest.raises(QueueClosed, match="shutting down"):
                await queue.embed([crop(1)], SEARCH)
            engine.go.set()
            outcomes = await asyncio.gather(*accepted)
            assert not stopping.done()  # the admitted crops are still to come
            assert seen(await embed([crop(50), crop(51)])) == [50, 51]
        await stopping
        assert [seen(outcome) for outcome in outcomes] == [[0], *([value] * 5 for value in range(1, 9))]


async def test_an_engine_that_hangs_sets_trouble_and_does_not_delay_the_stop() -> None:
    engine = ScriptedEngine()

    async with running(engine, stall_seconds=0.05) as queue:
        hanging = await busy_with(queue, engine)
        waiting = embedding(queue, [1])
        await asyncio.sleep(0.1)
        assert queue.trouble is not None
        await queue.stop(drain_seconds=0.05)
        assert seen(await hanging) == seen(await waiting) == ["error"]


async def test_callers_of_a_hanging_engine_fail_and_it_works_again_afterwards() -> None:
    engine = ScriptedEngine()

    async with running(engine, stall_seconds=0.05) as queue:
        hanging = await busy_with(queue, engine)
        waiting = [embedding(queue, [value] * 10, priority) for value, priority in ((1, BULK), (2, SEARCH))]
        async with asyncio.timeout(10):
            assert seen(await hanging) == ["error"]
            assert [seen(await task) for task in waiting] == [["error"] * 10] * 2
        assert "hangs" in (queue.trouble or "")
        with pytest.raises(QueueClosed, match="hangs"):
            await queue.embed([crop(3)], BULK)
        engine.go.set()
        await eventually(lambda: queue.trouble is None)
        assert seen(await queue.embed([crop(4)], BULK)) == [4]
    assert engine.batches == [[0], [4]]


async def test_an_engine_that_fails_on_a_blank_crop_too_is_in_trouble_until_it_works_again() -> None:
    engine = ScriptedEngine(largest_batch=0)

    async with running(engine, stall_seconds=0.05) as queue:
        assert seen(await queue.embed([crop(1)] * 3, BULK)) == ["error"] * 3
        assert "even with a blank crop" in (queue.trouble or "")
        assert seen(await queue.embed([crop(1)], BULK)) == ["error"]  # it still gets crops
        engine.largest_batch = 100
        await eventually(lambda: queue.trouble is None)
        assert seen(await queue.embed([crop(2)], BULK)) == [2]


async def test_a_queue_that_was_not_started_refuses_and_stops() -> None:
    queue = BatchQueue(Engines([ScriptedEngine()]), EmbeddingMetrics(CollectorRegistry()))
    assert queue.trouble is not None
    with pytest.raises(QueueClosed, match="not been started"):
        await queue.embed([crop(1)], BULK)
    await queue.stop()


async def test_two_engines_run_at_once_and_no_caller_waits_after_one_dies() -> None:
    first, second = ScriptedEngine(), ScriptedEngine()

    queue = BatchQueue(Engines([first, second]), EmbeddingMetrics(CollectorRegistry()), max_batch=4)
    await queue.start()
    first.go.clear()
    second.go.clear()
    tasks = [embedding(queue, [number] * 8) for number in range(3)]
    await eventually(lambda: first.busy.is_set() and second.busy.is_set())
    assert first.batches == second.batches == [[0] * 4]
    first.go.set()
    second.go.set()
    assert [seen(outcomes) for outcomes in await asyncio.gather(*tasks)] == [[0] * 8, [1] * 8, [2] * 8]
    first.go.clear()
    second.go.clear()
    dying = embedding(queue, [DIES])
    await eventually(lambda: first.busy.is_set() or second.busy.is_set())
    staying = embedding(queue, [5])
    await eventually(lambda: first.busy.is_set() and second.busy.is_set())
    first.go.set()
    second.go.set()
    assert seen(await dying) == ["error"]
    assert seen(await staying) in (["error"], [5])
    assert "the engine died" in (queue.trouble or "")
    await queue.stop(drain_seconds=5)


async def test_a_single_crop_on_an_idle_queue_goes_to_the_single_request_engine() -> None:
    worker, single_request = ScriptedEngine(), ScriptedEngine()
    queue = BatchQueue(Engines([worker, worker], single_request), EmbeddingMetrics(CollectorRegistry()), max_batch=4)
    await queue.start()
    async with asyncio.timeout(10):
        while not single_request.batches:  # once both workers are idle
            await queue.embed([crop(1)], BULK)
        while [2] not in worker.batches:  # two idle workers split a batch, and neither part is a single one
            await queue.embed([crop(2), crop(3)], BULK)
    assert [2] not in single_request.batches
    await queue.stop()
