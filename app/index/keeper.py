"""What keeps an index in step with the database: what was kept or the rows at start, the change log from then on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

import structlog

from app.index.port import Addition, Change, IndexLost, IndexUnreachable, VectorIndex

_MOST_NAMED = 20
_CHANGES_AT_ONCE = 500  # searches wait for about 4 ms while these are applied

_log = structlog.get_logger()


class IndexNotReady(Exception):
    """There is no index to search yet, or no longer: it is being loaded or rebuilt."""


class ChangesTrimmed(Exception):
    """The change log no longer holds all changes that were asked for."""


class DatabaseWentBack(Exception):
    """The index holds changes that the database does not know."""


class ChangeFeed(Protocol):
    """The embeddings of one model's crops, and what happens to them, as the database knows it.

    Sequence numbers become visible in their order: what was committed later never has a lower one. Methods may raise
    whatever the database's driver raises.
    """

    async def last_sequence(self) -> int:
        """The number of the last change that was committed, be it trimmed by now; 0 before the first."""

    def rows(self) -> AsyncIterator[Sequence[Addition]]:
        """Every crop there is, in batches. Their sequence is not looked at; changes may be committed meanwhile."""

    async def rows_of(self, keys: Sequence[int]) -> Sequence[Addition]:
        """Those crops of these keys that there are, each as in `rows`."""

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        """The next changes in ascending order, at most `limit`; none if there are none.

        An addition whose crop is gone by now is told as a removal. Raises ChangesTrimmed exactly where the log has
        lost a change after `sequence`.
        """

    def hints(self) -> AsyncIterator[None]:
        """An item each time when something may have been committed by anyone; may have none, lose some, or end."""

    async def trim(self) -> bool:
        """Delete some changes that need not be kept; False where there were none. Any process may do so at any time."""


class IndexHome(Protocol):
    """Where an index is while no process runs: in snapshots on a disk, or on a server that processes share."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """The right to change the index, while the block lasts: where processes share it, one of them at a time.

        Otherwise one that is slow could add a crop that another has removed since. May raise whatever the driver of
        the database raises.
        """

    async def existing(self) -> VectorIndex | None:
        """The index as it was left, or None where there is none that can be used. Raises IndexUnreachable."""

    async def rebuilt(self, fill: Callable[[VectorIndex], Awaitable[None]]) -> VectorIndex:
        """A new index that `fill` fills, in the place of the one before. Raises IndexUnreachable and what it raises."""

    async def keep(self) -> None:
        """Do now what has to be done now and then, so that `existing` finds the index."""

    async def close(self) -> None:
        """Do the last of it; the index is not used any more."""


class IndexKeeper:
    """Loads an index and keeps it in step with a feed, by itself and whenever it is asked to.

    The feed is the truth. Whatever does not fit it (damaged snapshots, trimmed changes, a server that lost its data, a
    database that was replaced or restored from a backup) ends in an index that is rebuilt from the feed's rows; there
    is no index meanwhile.
    """

    def __init__(
        self, feed: ChangeFeed, home: IndexHome, *, poll_seconds: float = 1.0, trim_seconds: float = 60.0
    ) -> None:
        """How often what is done.

        poll_seconds: longest pause between looks at the feed, which hints cut short; trim_seconds: pause after the log
        was found to have nothing to trim.
        """
        self._feed = feed
        self._home = home
        self._poll_seconds = poll_seconds
        self._trim_seconds = trim_seconds
        self._trim_at = 0.0
        self._index: VectorIndex | None = None
        self._missing = "the index is being loaded"
        self._one_run = asyncio.Lock()
        self._next_run: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._upkeep_fails = False
        self._stopping = False
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._heeding: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is an index to search."""
        return not self._missing

    @property
    def index(self) -> VectorIndex:
        """The index to search. Raises IndexNotReady."""
        if self._index is None or self._missing:
            raise IndexNotReady(f"{self._missing}; try again in a moment")
        return self._index

    async def start(self) -> None:
        """Load the index and begin to follow the feed. Raises what the feed and the index's home raise."""
        await self.catch_up()
        self._watching = asyncio.create_task(self._watch())
        self._heeding = asyncio.create_task(self._heed_hints())

    async def stop(self) -> None:
        """Stop following the feed and leave the index to its home."""
        self._stopping = True
        self._woken.set()
        if self._watching is not None and self._heeding is not None:
            await self._watching
            self._heeding.cancel()
            await asyncio.wait([self._heeding])
        async with self._one_run:  # a run that others wait for comes to its end
            pass
        await self._home.close()
        if self._index is not None:
            await asyncio.to_thread(self._index.close)
        if self._upkeep is not None:
            await self._upkeep

    async def catch_up(self) -> None:
        """Return when the index holds everything that was committed before the call.

        Raises what the feed and the index's home raise. Callers share runs: all that come while one is under way share
        the next one, as the one under way may have read the feed before they committed.
        """
        if self._next_run is None:
            self._next_run = asyncio.create_task(self._run())
        await asyncio.shield(self._next_run)

    async def _run(self) -> None:
        async with self._one_run:
            self._next_run = None
            try:
                async with self._home.turn():
                    await self._bring_into_step()
            except IndexUnreachable as error:
                self._missing = str(error)
                raise

    async def _bring_into_step(self) -> None:
        if self._index is None:
            self._index = await self._home.existing() or await self._home.rebuilt(self._fill)
        last_sequence = await self._feed.last_sequence()
        try:
            await self._follow(self._index, last_sequence)
        except (ChangesTrimmed, DatabaseWentBack, IndexLost) as error:
            await self._give_up_index(_reason(error))
            self._index = await self._home.rebuilt(self._fill)  # which holds more than last_sequence asks for
        self._missing = ""

    async def _fill(self, index: VectorIndex) -> None:
        # Read before the rows: what is committed while they are read comes again as a change.
        last_sequence = await self._feed.last_sequence()
        await asyncio.to_thread(index.load, (), last_sequence)
        crops = 0
        async for rows in self._feed.rows():
            refused = await asyncio.to_thread(index.load, rows, last_sequence)
            _log_refused(refused)
            await self._kept_up(index)
            crops += len(rows) - len(refused)
        _log.info("the index was built from the database's rows", crops=crops, last_sequence=last_sequence)

    async def _follow(self, index: VectorIndex, last_sequence: int) -> None:
        reached = await asyncio.to_thread(_last_sequence, index)
        if reached > last_sequence:
            raise DatabaseWentBack("the database was replaced or restored from a backup")
        while reached < last_sequence:
            changes = await self._feed.changes_after(reached, _CHANGES_AT_ONCE)
            if not changes:
                return
            _log_refused(await asyncio.to_thread(index.apply, changes))
            reached = changes[-1].sequence

    async def _give_up_index(self, reason: str) -> None:
        """From now on there is no index, so that its memory is free for the next one."""
        _log.warning("the index is rebuilt from the database's rows", reason=reason)
        self._missing = "the index is being rebuilt"
        index, self._index = self._index, None
        if index is not None:
            await asyncio.to_thread(index.close)

    async def _watch(self) -> None:
        failing = False
        while await self._goes_on():
            try:
                await self.catch_up()
                await self._trim_if_due()
            except Exception as error:
                if not failing:
                    _log.error("the index cannot follow the database", exc_info=error)
                failing = True
                continue
            if failing:
                _log.info("the index follows the database again")
            failing = False
            await self._home.keep()
            self._begin_upkeep()

    async def _goes_on(self) -> bool:
        """Wait for the next look; whether there is to be one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._woken.wait()
        self._woken.clear()
        return not self._stopping

    async def _heed_hints(self) -> None:
        try:
            async for _ in self._feed.hints():
                self._woken.set()
        except Exception as error:
            _log.error("there are no hints any more, only looks now and then", exc_info=error)

    async def _trim_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._trim_at:
            return
        if await self._feed.trim():
            self._woken.set()  # there may be more, which waits for the next look
        else:
            self._trim_at = now + self._trim_seconds

    def _begin_upkeep(self) -> None:
        if self.ready and (self._upkeep is None or self._upkeep.done()):
            self._upkeep = asyncio.create_task(self._keep_up(self.index))

    async def _keep_up(self, index: VectorIndex) -> None:
        """Let the index do its upkeep, and give it back what it lost."""
        damaged = await self._kept_up(index)
        if not damaged:
            return
        named = list(damaged[:_MOST_NAMED])
        _log.error("the disk has damaged embeddings, which are loaded again", crops=len(damaged), keys=named)
        try:
            async with self._one_run:
                rows = await self._feed.rows_of(damaged)
                _log_refused(await asyncio.to_thread(index.load, rows, index.last_sequence))
        except Exception as error:  # the next upkeep names them again
            _log.error("damaged embeddings could not be loaded; trying again", exc_info=error)

    async def _kept_up(self, index: VectorIndex) -> Sequence[int]:
        try:
            lost = await asyncio.to_thread(index.upkeep)
        except Exception as error:  # a full disk, say: the index answers as before, but takes more memory
            if not self._upkeep_fails:
                _log.error("the index could not be kept up", exc_info=error)
            self._upkeep_fails = True
            return ()
        if self._upkeep_fails:
            _log.info("the index is kept up again")
        self._upkeep_fails = False
        return lost


def _last_sequence(index: VectorIndex) -> int:
    """For a thread: where a server keeps the index, it is asked."""
    return index.last_sequence


def _reason(error: Exception) -> str:
    if isinstance(error, ChangesTrimmed):
        return f"the change log no longer holds all changes that the index lacks: {error}"
    return str(error)


def _log_refused(keys: Sequence[int]) -> None:
    if keys:
        _log.error("crops cannot be searched: their embeddings are not 2048 finite numbers", keys=list(keys))
