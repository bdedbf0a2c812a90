"""Lets callers of the same work share its runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class SharedRuns:
    """Runs some work for callers, one run at a time.

    Callers that come during a run share the next one, as the running one may have begun before what they wait for.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._running = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Return at the end of a run that begins after the call; it goes on if the caller is cancelled.

        Raises what the work raises.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        await asyncio.shield(self._next)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Wait for the end of a run, and begin no other within the context."""
        async with self._running:
            yield

    async def stop(self) -> None:
        """Cancel the next run, and wait for the end of the running one."""
        if self._next is not None:
            self._next.cancel()
        async with self.paused():
            pass

    async def _run(self) -> None:
        async with self._running:
            self._next = None
            await self._work()
