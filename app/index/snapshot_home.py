"""The home of an index that is in its process's memory: snapshots on disk, which keep it for the next process."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import structlog

from app.index.port import SnapshotIndex
from app.index.snapshots import SnapshotStore

_SAVED_SHARE = 20  # of the gallery changes from one snapshot to the next, where that is more than was asked for

_log = structlog.get_logger()


class SnapshotHome:
    """See `IndexHome`. A snapshot only makes the next start faster, so one that cannot be saved stops nothing."""

    def __init__(
        self, snapshots: SnapshotStore, new_index: Callable[[], SnapshotIndex], snapshot_every: int = 10_000
    ) -> None:
        """snapshot_every: changes from one snapshot to the next."""
        self._snapshots = snapshots
        self._new_index = new_index
        self._snapshot_every = snapshot_every
        self._index: SnapshotIndex | None = None
        self._saved_sequence = 0
        self._save_at_sequence = 0
        self._saving: asyncio.Task[None] | None = None

    def turn(self) -> AbstractAsyncContextManager[None]:
        """See `IndexHome`. Nobody else can change what is in this process."""
        return nullcontext()

    async def existing(self) -> SnapshotIndex | None:
        """See `IndexHome`."""
        index = await asyncio.to_thread(self._snapshots.newest, self._new_index().model_id)
        if index is not None:
            _log.info("the index was restored from a snapshot", crops=index.size, last_sequence=index.last_sequence)
            self._snapshot_taken(index.last_sequence, index.size)
            self._index = index
        return index

    async def rebuilt(self, fill: Callable[[SnapshotIndex], Awaitable[None]]) -> SnapshotIndex:
        """See `IndexHome`. What was wrong with the index was wrong with its snapshots: they go first."""
        self._index = None
        await self._end_of_saving()
        index = self._new_index()
        await asyncio.to_thread(self._snapshots.drop_all, index.model_id)
        await fill(index)
        self._saved_sequence = self._save_at_sequence = 0
        self._index = index
        return index

    async def keep(self) -> None:
        """See `IndexHome`. Begins to save a snapshot where one is due."""
        saving = self._saving is not None and not self._saving.done()
        if saving or self._index is None or self._index.last_sequence == self._saved_sequence:
            return
        if self._index.last_sequence >= self._save_at_sequence:
            self._saving = asyncio.create_task(self._save(self._index))

    async def close(self) -> None:
        """See `IndexHome`. Saves a last snapshot if anything changed since the one before."""
        await self._end_of_saving()
        if self._index is not None and self._index.last_sequence != self._saved_sequence:
            await self._save(self._index)

    async def _save(self, index: SnapshotIndex) -> None:
        try:
            state = await asyncio.to_thread(self._snapshots.save, index)
        except Exception as error:  # a full disk, say
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
