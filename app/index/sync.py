"""Index sync: opens or rebuilds the index at the start, then applies the database's change log to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from app.index.concurrent import ConcurrentSearches
from app.index.port import Addition, Change, Filter, IndexLost, IndexResult, IndexUnreachable, VectorIndex
from app.kit.shared_runs import SharedRuns
from model.architecture import EMBEDDING_DIM

_FAR_BEHIND = 20_000
_BATCHES_PER_MAINTENANCE = 10
_ROWS_PER_READ = 2_000
_SEED = 1804
_CHANGES_PER_BATCH = 500  # searches wait for about 4 ms while a batch is applied

Stored = TypeVar("Stored", bound=VectorIndex)

_log = structlog.get_logger()


class IndexNotReady(Exception):
    """There is no index to search: it is being loaded or rebuilt."""


class ChangesTrimmed(Exception):
    """The change log no longer holds all requested changes."""


class RebuildNeeded(Exception):
    """The index does not fit the database, or a rebuild is faster than the changes that it lacks."""


class ChangeLogReader(Protocol):
    """Reads the embeddings and the change log of one model from the database.

    Changes become visible in the order of their sequence numbers: a later commit never has a lower number. Methods may
    raise the exceptions of the database driver.
    """

    async def last_sequence(self) -> int:
        """Number of the last committed change, even if it is trimmed; 0 before the first."""

    def rows(self) -> AsyncIterator[Sequence[Addition]]:
        """All crops in batches; their sequence numbers have no meaning. Changes may be committed in the meantime."""

    async def keys(self) -> NDArray[np.int64]:
        """The keys of all crops, `(N,)`."""

    async def rows_by_key(self, keys: Sequence[int]) -> Sequence[Addition]:
        """The existing crops of these keys, each as in `rows`."""

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        """The next changes in ascending order, at most `limit`.

        The addition of a crop that is deleted by now is given as a removal. Raises ChangesTrimmed if and only if the
        log has lost a change after `sequence`.
        """

    def notifications(self) -> AsyncIterator[None]:
        """An item whenever any process may have committed a change; may miss commits, end, or be empty."""

    async def trim(self) -> bool:
        """Delete some changes that need not be kept; False if there were none. Several processes may trim at once."""


class IndexStorage(Protocol[Stored]):
    """Where an index is stored while no process runs: in snapshots on a disk, or on a server that processes share."""

    def write_lock(self) -> AbstractAsyncContextManager[None]:
        """A lock for changing the index; on a shared server, one process at a time holds it.

        Without the lock, a slow process could add a crop that another process has removed since. May raise the
        exceptions of the database driver.
        """

    async def open(self) -> Stored | None:
        """The stored index, or None if there is none that can be used. Raises IndexUnreachable."""

    async def discard(self) -> None:
        """Delete the stored index, which does not fit the database. Raises OSError."""

    async def rebuild(self, fill: Callable[[Stored], Awaitable[None]]) -> Stored:
        """Replace the stored index by a new one that `fill` fills. Raises IndexUnreachable and what `fill` raises."""

    async def save_if_due(self, index: Stored) -> None:
        """Save the index so that `open` finds it, if enough has changed since the last time."""

    async def close(self, index: Stored | None) -> None:
        """Save the index, if there is one that has changed, and release connections."""


class IndexSync:
    """Opens an index and keeps it in sync with a change log, by polling and whenever `catch_up` is called.

    The database is the truth. If the index does not fit it (damaged snapshots, trimmed changes, a server that lost its
    data, a database that was replaced or restored from a backup), the index is rebuilt from the database's rows, and
    there is no index in the meantime. An index that is outgrown is rebuilt, too, but answers until the new one takes
    over.
    """

    def __init__(
        self,
        change_log: ChangeLogReader,
        storage: IndexStorage[Any],
        *,
        poll_seconds: float = 1.0,
        trim_seconds: float = 60.0,
    ) -> None:
        """Set the intervals.

        poll_seconds: longest time between two polls of the change log; a notification polls at once. trim_seconds: time
        until the next trim after one that found nothing.
        """
        self._change_log = change_log
        self._storage = storage
        self._poll_seconds = poll_seconds
        self._trim_seconds = trim_seconds
        self._trim_at = 0.0
        self._index: VectorIndex | None = None
        self._not_ready_because = "the index is being loaded"
        self._searches = ConcurrentSearches()
        self._runs = SharedRuns(self._run)
        self._maintenance: asyncio.Task[None] | None = None
        self._maintenance_failing = False
        self._stopping = False
        self._poll_now = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is an index to search."""
        return not self._not_ready_because

    @property
    def index(self) -> VectorIndex:
        """The index to search. Raises IndexNotReady."""
        if self._index is None or self._not_ready_because:
            raise IndexNotReady(f"{self._not_ready_because}; try again in a moment")
        return self._index

    async def start(self) -> None:
        """Open the index and start to follow the change log. Raises what the log and the storage raise."""
        await self.catch_up()
        self._polling = asyncio.create_task(self._poll())
        self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Stop following the change log, and close the storage and the index."""
        self._stopping = True
        self._poll_now.set()
        if self._polling is not None and self._listening is not None:
            await self._polling
            self._listening.cancel()
            await asyncio.wait([self._listening])
        async with self._runs.paused():  # a run finishes that callers of `catch_up` wait for
            pass
        await self._storage.close(self._index)
        if self._index is not None:
            await asyncio.to_thread(self._index.close)
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])

    async def catch_up(self) -> None:
        """Return when the index holds everything that was committed before the call.

        Raises what the log and the storage raise. Callers that come during a run share the next run, because the
        current one may have read the log before they committed.
        """
        await self._runs.run()

    async def search(self, query: NDArray[np.float32], crop_filter: Filter, top_k: int) -> IndexResult:
        """The crops most similar to a query `(2048,)`: see `VectorIndex`. Raises IndexNotReady and what that raises."""
        return await self._searches.search(self.index, query, crop_filter, top_k)

    async def _run(self) -> None:
        try:
            async with self._storage.write_lock():
                await self._synchronize()
        except IndexUnreachable as error:
            self._not_ready_because = str(error)
            raise

    async def _synchronize(self) -> None:
        if self._index is None:
            self._index = await self._storage.open() or await self._storage.rebuild(self._fill)
        last_sequence = await self._change_log.last_sequence()
        try:
            await self._apply_changes(self._index, last_sequence)
        except (ChangesTrimmed, RebuildNeeded, IndexLost) as error:
            await self._discard_index(str(error))
            self._index = await self._storage.rebuild(self._fill)  # the rows include all changes up to last_sequence
        self._not_ready_because = ""

    async def _fill(self, index: VectorIndex) -> None:
        # Read before the rows: a change that is committed while they are read is then applied again afterwards.
        last_sequence = await self._change_log.last_sequence()
        try:
            await self._prepare(index)
            await asyncio.to_thread(index.load, (), last_sequence)
            crops = 0
            async for rows in self._change_log.rows():
                refused = await asyncio.to_thread(index.load, rows, last_sequence)
                _log_refused(refused)
                crops += len(rows) - len(refused)
            await asyncio.to_thread(index.maintain)
        except asyncio.CancelledError:
            index.close()
            raise
        _log.info("the index was built from the database's rows", crops=crops, last_sequence=last_sequence)

    async def _prepare(self, index: VectorIndex) -> None:
        """Give the index a random sample of the embeddings, if it needs one."""
        keys = await self._change_log.keys()
        count = min(len(keys), index.sample_size(len(keys)))
        if not count:
            return
        rng = np.random.default_rng(_SEED)
        chosen = np.sort(rng.choice(keys, count, replace=False)).tolist()
        sample = np.empty((count, EMBEDDING_DIM), np.float16)
        read = 0
        for start in range(0, count, _ROWS_PER_READ):
            for row in await self._change_log.rows_by_key(chosen[start : start + _ROWS_PER_READ]):
                if row.embedding.shape == (EMBEDDING_DIM,):
                    sample[read] = row.embedding
                    read += 1
        rng.shuffle(sample[:read])
        await asyncio.to_thread(index.prepare, sample[:read], len(keys))

    async def _apply_changes(self, index: VectorIndex, last_sequence: int) -> None:
        applied = await asyncio.to_thread(lambda: index.last_sequence)  # an index on a server sends a request
        if applied > last_sequence:
            raise RebuildNeeded("the database was replaced or restored from a backup")
        behind = last_sequence - applied
        if behind > _FAR_BEHIND and behind > 2 * await asyncio.to_thread(lambda: index.size):
            raise RebuildNeeded(f"the index lacks {behind:,} changes, which takes longer than a rebuild")
        batches = 0
        while applied < last_sequence:
            if batches and batches % _BATCHES_PER_MAINTENANCE == 0:
                await asyncio.to_thread(index.maintain)  # or the newest crops would take much memory
            batches += 1
            changes = await self._change_log.changes_after(applied, _CHANGES_PER_BATCH)
            if not changes:
                return
            _log_refused(await asyncio.to_thread(index.apply, changes))
            applied = changes[-1].sequence

    async def _discard_index(self, reason: str) -> None:
        """Close the index before the rebuild, so that its memory is free for the next one."""
        _log.warning("the index is rebuilt from the database's rows", reason=reason)
        self._not_ready_because = "the index is being rebuilt"
        index, self._index = self._index, None
        if index is not None:
            await asyncio.to_thread(index.close)
        await self._storage.discard()

    async def _poll(self) -> None:
        failing = False
        while await self._wait_for_poll():
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
            if self.ready:
                await self._storage.save_if_due(self.index)
                self._start_maintenance()

    async def _wait_for_poll(self) -> bool:
        """Wait for the next poll; False at the stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await self._poll_now.wait()
        self._poll_now.clear()
        return not self._stopping

    async def _listen(self) -> None:
        try:
            async for _ in self._change_log.notifications():
                self._poll_now.set()
        except Exception as error:
            _log.error("notifications of changes failed; the index only polls from now on", exc_info=error)

    async def _trim_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._trim_at:
            return
        if await self._change_log.trim():
            self._poll_now.set()  # there may be more to trim, at the next poll
        else:
            self._trim_at = now + self._trim_seconds

    def _start_maintenance(self) -> None:
        if self._maintenance is None or self._maintenance.done():
            self._maintenance = asyncio.create_task(self._maintain(self.index))

    async def _maintain(self, index: VectorIndex) -> None:
        try:
            if index.outgrown:
                await self._replace(index)
            else:
                await asyncio.to_thread(index.maintain)
        except Exception as error:  # searches are correct, but slower
            if not self._maintenance_failing:
                _log.error("maintenance of the index failed", exc_info=error)
            self._maintenance_failing = True
            return
        if self._maintenance_failing:
            _log.info("maintenance of the index works again")
        self._maintenance_failing = False

    async def _replace(self, outgrown: VectorIndex) -> None:
        """Build a new index from the rows while the outgrown one answers, then let the new one take over."""
        _log.info("the index is outgrown; a new one is built while it answers", crops=outgrown.size)
        new: VectorIndex = await self._storage.rebuild(self._fill)
        async with self._runs.paused(), self._storage.write_lock():
            if self._index is not outgrown:
                return  # a run has found that the outgrown index does not fit the database, and rebuilt it
            await self._apply_changes(new, await self._change_log.last_sequence())
            self._index = new
        await asyncio.to_thread(outgrown.close)


def _log_refused(keys: Collection[int]) -> None:
    if keys:
        _log.error("crops cannot be searched: their embeddings are not 2048 finite numbers", keys=sorted(keys))
