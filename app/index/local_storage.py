"""Index storage on the local disk: snapshots of an index that is in the process's memory."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import structlog

from app.index.port import SnapshotIndex
from app.index.snapshots import SnapshotStore

_SAVED_SHARE = 20  # a snapshot is due after changes of 1/20 of the gallery, if that is more than `snapshot_every`
_ERASE_SECONDS = 3600.0

_log = structlog.get_logger()


class LocalIndexStorage:
    """See `IndexStorage`. Snapshots only make the next start faster, so errors while saving are logged, not raised."""

    def __init__(
        self,
        model_id: str,
        snapshots: SnapshotStore,
        new_index: Callable[[], SnapshotIndex],
        snapshot_every: int = 10_000,
        erase_seconds: float = _ERASE_SECONDS,
    ) -> None:
        """Set when a snapshot is due.

        snapshot_every: number of changes since the last one. erase_seconds: time after which a deleted crop must have
        left the disk. A snapshot, which replaces all that hold the crop, begins after half of it.
        """
        self._model_id = model_id
        self._snapshots = snapshots
        self._new_index = new_index
        self._snapshot_every = snapshot_every
        self._erase_seconds = erase_seconds
        self._saved_sequence = 0
        self._removed_at: float | None = None
        self._save_at_sequence = 0
        self._saving: asyncio.Task[None] | None = None

    def write_lock(self) -> AbstractAsyncContextManager[None]:
        """See `IndexStorage`. No lock is needed, as no other process can change the index."""
        return nullcontext()

    async def open(self) -> SnapshotIndex | None:
        """See `IndexStorage`."""
        index = await asyncio.to_thread(self._snapshots.newest, self._model_id)
        if index is not None:
            _log.info("the index was restored from a snapshot", crops=index.size, last_sequence=index.last_sequence)
            self._record_snapshot(index.last_sequence, index.size)
        return index

    async def discard(self) -> None:
        """See `IndexStorage`."""
        await self._wait_for_save()
        await asyncio.to_thread(self._snapshots.drop_all, self._model_id)

    async def rebuild(self, fill: Callable[[SnapshotIndex], Awaitable[None]]) -> SnapshotIndex:
        """See `IndexStorage`."""
        index = self._new_index()
        await fill(index)
        self._saved_sequence = self._save_at_sequence = 0
        return index

    async def save_if_due(self, index: SnapshotIndex) -> None:
        """See `IndexStorage`. Saves in the background."""
        if self._saving is not None and not self._saving.done():
            return
        changed = index.last_sequence != self._saved_sequence
        due = changed and index.last_sequence >= self._save_at_sequence
        if due or self._must_erase(index):
            self._saving = asyncio.create_task(self._save(index))

    async def close(self, index: SnapshotIndex | None) -> None:
        """See `IndexStorage`."""
        await self._wait_for_save()
        if index is not None and index.last_sequence != self._saved_sequence:
            await self._save(index)

    def _must_erase(self, index: SnapshotIndex) -> bool:
        """Whether the snapshots have held a deleted crop for long enough."""
        if index.last_removal <= self._saved_sequence:
            self._removed_at = None
            return False
        now = time.monotonic()
        if self._removed_at is None:
            self._removed_at = now
        return now >= self._removed_at + self._erase_seconds / 2

    async def _save(self, index: SnapshotIndex) -> None:
        try:
            state = await asyncio.to_thread(self._snapshots.save, index)
        except Exception as error:  # such as a full disk
            _log.error("the index could not be saved", exc_info=error)
            self._save_at_sequence = index.last_sequence + self._snapshot_every
            self._removed_at = None  # tried again after as long a time
        else:
            _log.info("the index was saved", crops=state.size, last_sequence=state.last_sequence)
            self._record_snapshot(state.last_sequence, state.size)

    def _record_snapshot(self, last_sequence: int, size: int) -> None:
        self._saved_sequence = last_sequence
        self._save_at_sequence = last_sequence + max(self._snapshot_every, size // _SAVED_SHARE)

    async def _wait_for_save(self) -> None:
        if self._saving is not None:
            await self._saving
