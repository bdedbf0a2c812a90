"""Callers of the same work share its runs."""

import asyncio

import pytest

from app.kit.shared_runs import SharedRuns


class Work:
    """Counts its runs, each of which waits for a permit."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = asyncio.Event()
        self.permits = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.runs += 1
        self.begun.set()
        await self.permits.acquire()
        if self.error is not None:
            raise self.error


async def test_callers_during_a_run_share_the_next_one() -> None:
    work = Work()
    shared = SharedRuns(work)
    first = asyncio.create_task(shared.run())
    await work.begun.wait()
    others = [asyncio.create_task(shared.run()) for _ in range(5)]
    await asyncio.sleep(0)
    work.permits.release()
    await first
    assert not any(task.done() for task in others)
    work.permits.release()
    await asyncio.gather(*others)
    assert work.runs == 2


async def test_all_callers_of_a_failed_run_get_its_error_and_the_next_run_works() -> None:
    work = Work()
    work.error = OSError("the database is down")
    work.permits.release()
    shared = SharedRuns(work)
    results = await asyncio.gather(shared.run(), shared.run(), return_exceptions=True)
    assert [str(result) for result in results] == ["the database is down"] * 2
    work.error = None
    work.permits.release()
    await shared.run()
    assert work.runs == 2


async def test_a_run_goes_on_if_its_caller_is_cancelled() -> None:
    work = Work()
    shared = SharedRuns(work)
    caller = asyncio.create_task(shared.run())
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    work.permits.release()
    async with shared.paused():
        assert work.runs == 1


async def test_stopping_finishes_a_run_and_cancels_the_next() -> None:
    work = Work()
    shared = SharedRuns(work)
    running = asyncio.create_task(shared.run())
    await work.begun.wait()
    waiting = asyncio.create_task(shared.run())
    await asyncio.sleep(0)
    stopping = asyncio.create_task(shared.stop())
    await asyncio.sleep(0)
    work.permits.release()
    await running
    await stopping
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.runs == 1
