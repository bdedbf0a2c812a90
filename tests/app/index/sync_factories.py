"""A change log in memory, and index syncs that follow it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_index import FaissIndex, Tuning
from app.index.local_storage import LocalIndexStorage
from app.index.port import Addition, Change, Removal
from app.index.sync import ChangesTrimmed, IndexSync
from tests.app.index.index_factories import MODEL, crop, store_in
from tests.app.logged import Logged


class MemoryChangeLog:
    """A `ChangeLogReader` in memory, which can fail, block, and lose changes."""

    def __init__(self) -> None:
        self.crops: dict[int, Addition] = {}
        self.changes: list[Change] = []
        self.trimmed_to = 0
        self.error: Exception | None = None
        self.reads = 0
        self.row_batches = 0
        self.after_read: Callable[[], Awaitable[object]] | None = None
        self.during_rows: Callable[[], object] | None = None
        self.before_rows_by_key: Callable[[], Awaitable[object]] | None = None
        self.notification = asyncio.Event()
        self.notifications_error: Exception | None = None
        self.trim_results: list[bool] = []
        self.trims = 0
        self.during_trim: Callable[[], Awaitable[object]] | None = None

    def add(self, *additions: int) -> None:
        for key in additions:
            self.crops[key] = crop(key, sequence=self._next_sequence())
            self.changes.append(self.crops[key])

    def remove(self, *keys: int) -> None:
        for key in keys:
            del self.crops[key]
            self.changes.append(Removal(self._next_sequence(), key))

    def _next_sequence(self) -> int:
        return self.changes[-1].sequence + 1 if self.changes else 1

    async def last_sequence(self) -> int:
        self._fail()
        self.reads += 1
        last = self.changes[-1].sequence if self.changes else 0
        if self.after_read is not None:
            await self.after_read()
        return last

    async def rows(self) -> AsyncIterator[Sequence[Addition]]:
        crops = list(self.crops.values())
        for start in range(0, len(crops), 2):
            self._fail()
            self.row_batches += 1
            yield [crop(addition.key, sequence=0) for addition in crops[start : start + 2]]
            if self.during_rows is not None:
                self.during_rows()

    async def keys(self) -> NDArray[np.int64]:
        self._fail()
        return np.array(list(self.crops), np.int64)

    async def rows_by_key(self, keys: Sequence[int]) -> Sequence[Addition]:
        self._fail()
        if self.before_rows_by_key is not None:
            await self.before_rows_by_key()
        return [crop(key, sequence=0) for key in keys if key in self.crops]

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        self._fail()
        if sequence < self.trimmed_to:
            raise ChangesTrimmed(f"trimmed to {self.trimmed_to}")
        changes = [change for change in self.changes if change.sequence > sequence][:limit]
        return [change if change.key in self.crops else Removal(change.sequence, change.key) for change in changes]

    async def notifications(self) -> AsyncIterator[None]:
        while True:
            await self.notification.wait()
            self.notification.clear()
            if self.notifications_error is not None:
                raise self.notifications_error
            yield None

    async def trim(self) -> bool:
        """Returns the items of `trim_results`, then False."""
        self._fail()
        self.trims += 1
        if self.during_trim is not None:
            await self.during_trim()
        return self.trim_results.pop(0) if self.trim_results else False

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def sync_of(
    change_log: MemoryChangeLog,
    folder: Path,
    snapshot_every: int = 10_000,
    poll: float = 60,
    trim: float = 60,
    tuning: Tuning | None = None,
    erase: float = 3600,
) -> IndexSync:
    def new_index() -> FaissIndex:
        return FaissIndex(MODEL, tuning)

    storage = LocalIndexStorage(MODEL, store_in(folder, tuning=tuning), new_index, snapshot_every, erase)
    return IndexSync(change_log, storage, poll_seconds=poll, trim_seconds=trim)


def events(logged: Logged) -> str:
    return " | ".join(f"{entry['event']} {entry.get('reason', '')}" for entry in logged)


async def save_snapshot(folder: Path, change_log: MemoryChangeLog, tuning: Tuning | None = None) -> None:
    """Save a snapshot of the change log's crops, as an earlier process would have."""
    sync = sync_of(change_log, folder, tuning=tuning)
    await sync.start()
    await sync.stop()
    change_log.row_batches = 0
