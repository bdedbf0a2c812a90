"""A feed that lives in memory, and keepers that follow it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from index_factories import MODEL, crop, store_in
from structlog.testing import LogCapture

from app.index.faiss_index import FaissIndex
from app.index.keeper import ChangesTrimmed, IndexKeeper
from app.index.port import Addition, Change, Removal
from app.index.snapshot_home import SnapshotHome
from app.index.tuning import Tuning


class MemoryFeed:
    """A database of embeddings that lives in memory, can lose things, and can be held up."""

    def __init__(self) -> None:
        self.crops: dict[int, Addition] = {}
        self.log: list[Change] = []
        self.trimmed_to = 0
        self.error: Exception | None = None
        self.looks = 0
        self.row_batches = 0
        self.after_look: Callable[[], Awaitable[object]] | None = None
        self.during_rows: Callable[[], object] | None = None
        self.hint = asyncio.Event()
        self.hints_error: Exception | None = None
        self.trim_results: list[bool] = []
        self.trims = 0

    def add(self, *additions: int) -> None:
        for key in additions:
            self.crops[key] = crop(key, sequence=self._next_sequence())
            self.log.append(self.crops[key])

    def remove(self, *keys: int) -> None:
        for key in keys:
            del self.crops[key]
            self.log.append(Removal(self._next_sequence(), key))

    def _next_sequence(self) -> int:
        return self.log[-1].sequence + 1 if self.log else 1

    async def last_sequence(self) -> int:
        self._fail()
        self.looks += 1
        last = self.log[-1].sequence if self.log else 0
        if self.after_look is not None:
            await self.after_look()
        return last

    async def rows(self) -> AsyncIterator[Sequence[Addition]]:
        crops = list(self.crops.values())
        for start in range(0, len(crops), 2):
            self._fail()
            self.row_batches += 1
            yield [crop(one.key, sequence=0) for one in crops[start : start + 2]]
            if self.during_rows is not None:
                self.during_rows()

    async def rows_of(self, keys: Sequence[int]) -> Sequence[Addition]:
        self._fail()
        return [crop(key, sequence=0) for key in keys if key in self.crops]

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        self._fail()
        if sequence < self.trimmed_to:
            raise ChangesTrimmed(f"trimmed to {self.trimmed_to}")
        changes = [change for change in self.log if change.sequence > sequence][:limit]
        return [change if change.key in self.crops else Removal(change.sequence, change.key) for change in changes]

    async def hints(self) -> AsyncIterator[None]:
        while True:
            await self.hint.wait()
            self.hint.clear()
            if self.hints_error is not None:
                raise self.hints_error
            yield None

    async def trim(self) -> bool:
        """What is scripted in `trim_results`, then that there is nothing."""
        self._fail()
        self.trims += 1
        return self.trim_results.pop(0) if self.trim_results else False

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def keeper_of(
    feed: MemoryFeed,
    folder: Path,
    snapshot_every: int = 10_000,
    poll: float = 60,
    trim: float = 60,
    tuning: Tuning | None = None,
) -> IndexKeeper:
    def new_index() -> FaissIndex:
        return FaissIndex(MODEL, folder / "working", tuning)

    home = SnapshotHome(store_in(folder, tuning=tuning), new_index, snapshot_every)
    return IndexKeeper(feed, home, poll_seconds=poll, trim_seconds=trim)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(4000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 20 seconds")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def events(logged: LogCapture) -> str:
    return " | ".join(f"{entry['event']} {entry.get('reason', '')}" for entry in logged.entries)


def save_snapshot(folder: Path, feed: MemoryFeed, tuning: Tuning | None = None) -> None:
    """A snapshot of what the feed holds now, as an earlier process would have left it."""

    async def earlier_process() -> None:
        keeper = keeper_of(feed, folder, tuning=tuning)
        await keeper.start()
        await keeper.stop()

    run(earlier_process())
    feed.row_batches = 0
