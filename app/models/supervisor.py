"""The one loop of the models: polls the database, follows the active model, and rolls the next one out."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

import structlog

from app.database import DATABASE_DOWN
from app.models.active import ActiveModel
from app.models.rollout import Rollout

_log = structlog.get_logger()


@dataclass
class _BackOff:
    """Pauses, in seconds, that double with each failure in a row."""

    first: float
    longest: float
    pause: float = 0.0
    due: float = 0.0

    def failed(self) -> None:
        self.pause = min(max(2 * self.pause, self.first), self.longest)
        self.due = time.monotonic() + self.pause

    def worked(self) -> None:
        self.pause = self.due = 0.0


class ModelSupervisor:
    """Follows the active model at each poll, while the rollout runs in a task of its own. What fails is tried again."""

    def __init__(self, active_model: ActiveModel, rollout: Rollout, poll_seconds: float = 1.0) -> None:
        """poll_seconds: pause between polls of the database."""
        self._active_model = active_model
        self._rollout = rollout
        self._poll_seconds = poll_seconds
        self._following = _BackOff(first=2 * poll_seconds, longest=30.0)
        self._working = _BackOff(first=1.0, longest=60.0)
        self._work: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._stopped = False
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start polling."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop polling, and wait for the running poll and the rollout's running transaction."""
        self._stopped = True
        self._rollout.stop()
        self._woken.set()
        for task in (self._loop, self._work):
            if task is not None:
                await task

    def wake(self) -> None:
        """Poll now."""
        self._woken.set()

    async def _run(self) -> None:
        while not self._stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._woken.wait()
                self._working.worked()  # an operator's request is not put off by earlier failures
            self._woken.clear()
            if time.monotonic() >= self._following.due:
                await self._follow()
            idle = self._work is None or self._work.done()
            if idle and not self._stopped and time.monotonic() >= self._working.due:
                self._work = asyncio.create_task(self._roll_out())

    async def _follow(self) -> None:
        try:
            await self._active_model.refresh()
        except Exception as error:
            if not self._following.pause:
                _log.error("the active model cannot be followed", error=str(error))
            self._following.failed()
            return
        if self._active_model.next_trouble is None:
            self._following.worked()
        else:
            self._following.failed()

    async def _roll_out(self) -> None:
        try:
            await self._rollout.work()
            self._working.worked()
        except Exception as error:
            if self._stopped:  # the rollout's process was killed
                return
            self._working.failed()
            _log.error("reindexing failed and is retried", seconds=self._working.pause, exc_info=error)
            with suppress(*DATABASE_DOWN):
                await self._rollout.store_failure(error)
