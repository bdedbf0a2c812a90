"""What keeps an index in step with the database: a snapshot or the rows at start, the change log from then on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from app.index.port import Addition, Change, VectorIndex
from app.index.snapshots import SnapshotStore

_SAVED_SHARE = 20  # of the gallery changes from one snapshot to the next, where that is more than was asked for
_CHANGES_AT_ONCE = 500  # searches wait for about 4 ms while these are applied

_log = structlog.get_logger()


class IndexNotReady(Exception):
    """There is no index to search yet, or no longer: it is being loaded or rebuilt."""


class ChangesTrimmed(Exception):
    """The change log no longer holds all changes that were asked for."""


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


class IndexKeeper:
    """Loads an index and keeps it in step with a feed, by itself and whenever it is asked to.

    The feed is the truth. Whatever does not fit it (damaged snapshots, trimmed changes, a database that was replaced
    or restored from a backup) ends in an index that is rebuilt from the feed's rows; there is no index meanwhile.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        snapshots: SnapshotStore,
        new_index: Callable[[], VectorIndex],
        *,
        snapshot_every: int = 10_000,
        poll_seconds: float = 1.0,
        trim_seconds: float = 60.0,
    ) -> None:
        """How often what is done.

        snapshot_every: changes from one snapshot to the next; poll_seconds: longest pause between looks at the feed,
        which hints cut short; trim_seconds: pause after the log was found to have nothing to trim.
        """
        self._feed = feed
        self._snapshots = snapshots
        self._new_index = new_index
        self._snapshot_every = snapshot_every
        self._poll_seconds = poll_seconds
        self._trim_seconds = trim_seconds
        self._trim_at = 0.0
        self._index: VectorIndex | None = None
        self._ready = False
        self._one_run = asyncio.Lock()
        self._next_run: asyncio.Task[None] | None = None
        self._saved_sequence = 0
        self._save_at_sequence = 0
        self._saving: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._stopping = False
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._heeding: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is an index to search."""
        return self._ready

    @property
    def index(self) -> VectorIndex:
        """The index to search. Raises IndexNotReady."""
        if self._index is None or not self._ready:
            raise IndexNotReady("the index is being loaded; try again in a moment")
        return self._index

    async def start(self) -> None:
        """Load the index and begin to follow the feed. Raises what the feed raises."""
        await self.catch_up()
        self._watching = asyncio.create_task(self._watch())
        self._heeding = asyncio.create_task(self._heed_hints())

    async def stop(self) -> None:
        """Stop following the feed and save a last snapshot if anything changed since the one before."""
        self._stopping = True
        self._woken.set()
        if self._watching is not None and self._heeding is not None:
            await self._watching
            self._heeding.cancel()
            await asyncio.wait([self._heeding])
        async with self._one_run:  # a run that others wait for comes to its end
            pass
        await self._end_of_saving()
        if self._ready and self.index.last_sequence != self._saved_sequence:
            await self._save(self.index)
        if self._index is not None:
            await asyncio.to_thread(self._index.close)
        if self._upkeep is not None:
            await self._upkeep

    async def catch_up(self) -> None:
        """Return when the index holds everything that was committed before the call. Raises what the feed raises.

        Callers share runs: all that come while one is under way share the next one, as the one under way may have
        read the feed before they committed.
        """
        if self._next_run is None:
            self._next_run = asyncio.create_task(self._run())
        await asyncio.shield(self._next_run)

    async def _run(self) -> None:
        async with self._one_run:
            self._next_run = None
            await self._bring_into_step()

    async def _bring_into_step(self) -> None:
        if self._index is None:
            self._index = await self._restored() or await self._rebuilt()
        last_sequence = await self._feed.last_sequence()
        if self._index.last_sequence > last_sequence:
            await self._give_up_index("the database was replaced or restored from a backup")
            await self._end_of_saving()
            await asyncio.to_thread(self._snapshots.drop_all, self._new_index().model_id)
            self._index = await self._rebuilt()
        try:
            await self._follow(self._index, last_sequence)
        except ChangesTrimmed as error:
            await self._give_up_index(f"the change log no longer holds all changes that the index lacks: {error}")
            self._index = await self._rebuilt()  # which holds more than last_sequence asks for
        self._ready = True

    async def _restored(self) -> VectorIndex | None:
        index = await asyncio.to_thread(self._snapshots.newest, self._new_index().model_id)
        if index is not None:
            _log.info("the index was restored from a snapshot", crops=index.size, last_sequence=index.last_sequence)
            self._snapshot_taken(index.last_sequence, index.size)
        return index

    async def _rebuilt(self) -> VectorIndex:
        # Read before the rows: what is committed while they are read comes again as a change.
        last_sequence = await self._feed.last_sequence()
        index = self._new_index()
        index.load((), last_sequence)
        async for rows in self._feed.rows():
            _log_refused(await asyncio.to_thread(index.load, rows, last_sequence))
            await self._kept_up(index)
        _log.info("the index was built from the database's rows", crops=index.size, last_sequence=last_sequence)
        self._saved_sequence = self._save_at_sequence = 0
        return index

    async def _follow(self, index: VectorIndex, last_sequence: int) -> None:
        while index.last_sequence < last_sequence:
            changes = await self._feed.changes_after(index.last_sequence, _CHANGES_AT_ONCE)
            if not changes:
                return
            _log_refused(await asyncio.to_thread(index.apply, changes))

    async def _give_up_index(self, reason: str) -> None:
        """From now on there is no index, so that its memory is free for the next one."""
        _log.warning("the index is rebuilt from the database's rows", reason=reason)
        self._ready = False
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
            self._save_if_due()
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
        if self._ready and (self._upkeep is None or self._upkeep.done()):
            self._upkeep = asyncio.create_task(self._keep_up(self.index))

    async def _keep_up(self, index: VectorIndex) -> None:
        damaged = await self._kept_up(index)
        if not damaged:
            return
        _log.error("the index holds crops that the disk has damaged, which are loaded again", keys=list(damaged))
        try:
            async with self._one_run:
                rows = await self._feed.rows_of(damaged)
                _log_refused(await asyncio.to_thread(index.load, rows, index.last_sequence))
        except Exception as error:  # the next upkeep names them again
            _log.error("damaged crops could not be loaded; trying again", exc_info=error)

    async def _kept_up(self, index: VectorIndex) -> Sequence[int]:
        try:
            return await asyncio.to_thread(index.upkeep)
        except Exception as error:  # a full disk, say: the index answers as before, but takes more memory
            _log.error("the index could not be kept up", exc_info=error)
            return ()

    def _save_if_due(self) -> None:
        saving = self._saving is not None and not self._saving.done()
        if saving or not self._ready or self.index.last_sequence == self._saved_sequence:
            return
        if self.index.last_sequence >= self._save_at_sequence:
            self._saving = asyncio.create_task(self._save(self.index))

    async def _save(self, index: VectorIndex) -> None:
        try:
            state = await asyncio.to_thread(self._snapshots.save, index)
        except Exception as error:  # a full disk, say: snapshots only make the next start faster
            _log.error("the index could not be saved", exc_info=error)
            self._save_at_sequence = index.last_sequence + self._snapshot_every
        else:
            _log.info("the index was saved", crops=state.size, last_sequence=state.last_sequence)
            self._snapshot_taken(state.last_sequence, state.size)

    def _snapshot_taken(self, last_sequence: int, size: int) -> None:
        self._saved_sequence = last_sequence
        self._save_at_sequence = last_sequence + max(self._snapshot_every, size // _SAVED_SHARE)

    async def _end_of_saving(self) -> None:
        if self._saving is not None:
            await self._saving


def _log_refused(keys: Sequence[int]) -> None:
    if keys:
        _log.error("crops cannot be searched: their embeddings are not 2048 finite numbers", keys=list(keys))
