"""The keeper: an index in step with a feed, whatever happened to snapshots, changes or the feed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from index_factories import MODEL, all_keys, crop, embedding, is_found
from structlog.testing import LogCapture

from app.index.faiss_exact import FaissExactIndex
from app.index.keeper import ChangesTrimmed, IndexKeeper, IndexNotReady
from app.index.port import Addition, Change, Removal
from app.index.snapshots import SnapshotStore


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

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        self._fail()
        if sequence < self.trimmed_to:
            raise ChangesTrimmed
        changes = [change for change in self.log if change.sequence > sequence][:limit]
        return [change if change.key in self.crops else Removal(change.sequence, change.key) for change in changes]

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def keeper_of(feed: MemoryFeed, folder: Path, snapshot_every: int = 10_000, poll: float = 60) -> IndexKeeper:
    return IndexKeeper(
        feed,
        SnapshotStore(folder),
        lambda: FaissExactIndex(MODEL),
        snapshot_every=snapshot_every,
        poll_seconds=poll,
    )


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


def save_snapshot(folder: Path, feed: MemoryFeed) -> None:
    """A snapshot of what the feed holds now, as an earlier process would have left it."""

    async def earlier_process() -> None:
        keeper = keeper_of(feed, folder)
        await keeper.start()
        await keeper.stop()

    run(earlier_process())
    feed.row_batches = 0


def test_it_starts_from_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        keeper = keeper_of(MemoryFeed(), tmp_path)
        assert not keeper.ready
        with pytest.raises(IndexNotReady):
            _ = keeper.index
        await keeper.start()
        assert keeper.ready
        assert (keeper.index.size, keeper.index.last_sequence) == (0, 0)
        await keeper.stop()

    run(test())
    assert SnapshotStore(tmp_path).newest(MODEL) is None


def test_it_starts_from_the_rows_where_there_is_no_snapshot(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3, 4, 5)
        feed.remove(2)
        feed.trimmed_to = 6
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert all_keys(keeper.index) == {1, 3, 4, 5}
        assert keeper.index.last_sequence == 6
        await keeper.stop()

    run(test())


def test_what_is_committed_while_the_rows_are_read_is_not_missed(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3, 4)

        def others_write() -> None:
            feed.during_rows = None
            feed.add(5)
            feed.remove(1, 4)

        feed.during_rows = others_write
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        await keeper.catch_up()
        assert all_keys(keeper.index) == {2, 3, 5}
        assert keeper.index.last_sequence == 7
        await keeper.stop()

    run(test())


def test_it_starts_from_a_snapshot_and_the_changes_after_it(tmp_path: Path) -> None:
    feed = MemoryFeed()
    feed.add(*range(1, 4))
    save_snapshot(tmp_path, feed)
    feed.add(*range(4, 1200))
    feed.remove(2, 1000)

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert all_keys(keeper.index) == feed.crops.keys()
        assert feed.row_batches == 0
        await keeper.stop()

    run(test())


def test_it_starts_from_the_rows_where_all_snapshots_are_damaged(tmp_path: Path, logged: LogCapture) -> None:
    feed = MemoryFeed()
    for key in (1, 2):
        feed.add(key)
        save_snapshot(tmp_path, feed)
    for path in tmp_path.glob("*/embeddings.f16"):
        path.write_bytes(path.read_bytes()[:-1])

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert all_keys(keeper.index) == {1, 2}
        assert feed.row_batches == 1
        await keeper.stop()

    run(test())
    assert events(logged).count("damaged") == 2
    newest = SnapshotStore(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {1, 2}


def test_it_rebuilds_the_index_where_changes_were_trimmed(tmp_path: Path, logged: LogCapture) -> None:
    feed = MemoryFeed()
    feed.add(1, 2)
    save_snapshot(tmp_path, feed)
    feed.add(3, 4)
    feed.remove(1)
    feed.trimmed_to = 4

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path, poll=0.01)
        await keeper.start()
        assert all_keys(keeper.index) == {2, 3, 4}
        assert keeper.index.last_sequence == 5
        await until((tmp_path / "00000002").exists)  # the next start need not do it again
        await keeper.stop()

    run(test())
    assert "no longer holds all changes" in events(logged)


def test_a_snapshot_of_a_database_that_was_replaced_is_not_used_now_or_later(
    tmp_path: Path, logged: LogCapture
) -> None:
    former = MemoryFeed()
    former.add(*range(1, 11))
    save_snapshot(tmp_path, former)
    feed = MemoryFeed()
    feed.add(21, 22)

    async def process_that_is_killed() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert all_keys(keeper.index) == {21, 22}

    async def next_process() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert all_keys(keeper.index) == feed.crops.keys()
        await keeper.stop()

    run(process_that_is_killed())
    assert "replaced or restored" in events(logged)
    feed.add(*range(23, 43))  # by now it holds more changes than the snapshot
    run(next_process())


def test_it_rebuilds_the_index_when_the_database_goes_back_under_it(tmp_path: Path, logged: LogCapture) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3)
        keeper = keeper_of(feed, tmp_path, snapshot_every=1, poll=0.01)
        await keeper.start()
        await until(lambda: len(list(tmp_path.glob("0*"))) == 1)
        feed.crops.clear()
        feed.log.clear()
        feed.add(11, 12)
        ready_meanwhile: list[bool] = []
        feed.during_rows = lambda: ready_meanwhile.append(keeper.ready)
        await until(lambda: keeper.ready and keeper.index.last_sequence == 2)
        assert all_keys(keeper.index) == {11, 12}
        assert ready_meanwhile == [False]
        await keeper.stop()

    run(test())
    assert "replaced or restored" in events(logged)
    newest = SnapshotStore(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {11, 12}


def test_after_catching_up_everything_committed_before_is_found(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()

        async def writer(first: int) -> None:
            for key in range(first, first + 20):
                feed.add(key)
                await keeper.catch_up()
                assert is_found(keeper.index, key)
                if key % 3 == 0:
                    feed.remove(key)
                    await keeper.catch_up()
                    assert key not in all_keys(keeper.index)
                await asyncio.sleep(0)

        await asyncio.gather(*(writer(first) for first in range(0, 200, 20)))
        assert all_keys(keeper.index) == feed.crops.keys()
        await keeper.stop()

    run(test())


def test_who_commits_during_a_run_is_served_by_the_next_one_together_with_others(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        looked, go_on = asyncio.Event(), asyncio.Event()

        async def hold_up() -> None:
            looked.set()
            await go_on.wait()

        feed.after_look = hold_up
        looks = feed.looks
        early = asyncio.create_task(keeper.catch_up())
        await looked.wait()  # this run has seen an empty feed
        feed.add(1)
        late = [asyncio.create_task(keeper.catch_up()) for _ in range(5)]
        await asyncio.sleep(0.01)
        go_on.set()
        await early
        await asyncio.gather(*late)
        assert is_found(keeper.index, 1)
        assert feed.looks == looks + 2
        await keeper.stop()

    run(test())


def test_a_caller_that_goes_away_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.after_look = lambda: asyncio.sleep(0.05)
        feed.add(1)
        first = asyncio.create_task(keeper.catch_up())
        second = asyncio.create_task(keeper.catch_up())
        await asyncio.sleep(0.01)
        first.cancel()
        await second
        assert first.cancelled()
        assert is_found(keeper.index, 1)
        await keeper.stop()

    run(test())


def test_an_error_of_the_feed_reaches_the_caller_and_the_next_call_works(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1)
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.add(2)
        feed.error = ConnectionError("the database is gone")
        with pytest.raises(ConnectionError):
            await keeper.catch_up()
        assert keeper.ready
        assert all_keys(keeper.index) == {1}
        feed.error = None
        await keeper.catch_up()
        assert all_keys(keeper.index) == {1, 2}
        await keeper.stop()

    run(test())


def test_a_start_that_fails_leaves_it_not_ready_and_can_be_repeated(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3)

        def fail() -> None:
            feed.error = ConnectionError("the database is gone")

        feed.during_rows = fail
        keeper = keeper_of(feed, tmp_path)
        with pytest.raises(ConnectionError):
            await keeper.start()
        assert not keeper.ready
        await keeper.stop()
        feed.error = feed.during_rows = None
        await keeper.catch_up()
        assert all_keys(keeper.index) == {1, 2, 3}

    run(test())


def test_it_is_not_ready_before_all_changes_are_applied(tmp_path: Path) -> None:
    feed = MemoryFeed()
    feed.add(1)
    save_snapshot(tmp_path, feed)
    feed.add(2)

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path)
        looked, go_on = asyncio.Event(), asyncio.Event()

        async def hold_up() -> None:
            looked.set()
            await go_on.wait()

        feed.after_look = hold_up
        starting = asyncio.create_task(keeper.start())
        await looked.wait()
        assert not keeper.ready
        go_on.set()
        await starting
        assert all_keys(keeper.index) == {1, 2}
        await keeper.stop()

    run(test())


def test_changes_made_elsewhere_are_picked_up_also_after_the_feed_failed(tmp_path: Path, logged: LogCapture) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path, poll=0.01)
        await keeper.start()
        feed.add(1)
        await until(lambda: keeper.index.size == 1)
        feed.error = ConnectionError("the database is gone")
        await asyncio.sleep(0.1)
        feed.error = None
        feed.add(2)
        await until(lambda: keeper.index.size == 2)
        await keeper.stop()

    run(test())
    assert events(logged).count("cannot follow") == 1
    assert events(logged).count("follows the database again") == 1


def test_a_last_snapshot_is_saved_at_stop_if_anything_changed(tmp_path: Path) -> None:
    feed = MemoryFeed()
    feed.add(1)
    save_snapshot(tmp_path, feed)
    feed.add(2)

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.add(3)
        await keeper.catch_up()
        await keeper.stop()

    async def process_without_changes() -> None:
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        assert feed.row_batches == 0
        await keeper.stop()

    run(test())
    newest = SnapshotStore(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {1, 2, 3}
    run(process_without_changes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


def test_a_snapshot_is_saved_after_so_many_changes(tmp_path: Path) -> None:
    feed = MemoryFeed()
    feed.add(1)
    save_snapshot(tmp_path, feed)

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path, snapshot_every=5, poll=0.01)
        await keeper.start()
        feed.add(2, 3, 4, 5)
        await until(lambda: keeper.index.size == 5)
        await asyncio.sleep(0.1)
        assert not (tmp_path / "00000002").exists()
        feed.add(6)
        await until((tmp_path / "00000002").exists)
        await keeper.stop()

    run(test())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


def test_a_snapshot_that_cannot_be_saved_stops_nothing(tmp_path: Path, logged: LogCapture) -> None:
    async def test() -> None:
        (tmp_path / "snapshots").write_text("a file where the folder should be")
        feed = MemoryFeed()
        feed.add(1)
        keeper = keeper_of(feed, tmp_path / "snapshots" / "deeper", snapshot_every=2, poll=0.01)
        await keeper.start()
        await until(lambda: "could not be saved" in events(logged))
        await asyncio.sleep(0.1)
        assert events(logged).count("could not be saved") == 1
        feed.add(2)
        await until(lambda: keeper.index.size == 2)
        await keeper.stop()

    run(test())


def test_a_crop_whose_embedding_is_damaged_holds_nothing_up(tmp_path: Path, logged: LogCapture) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.add(1, 2, 3)
        feed.log[1] = crop(2, sequence=2, vector=embedding(2) * float("nan"))
        await keeper.catch_up()
        assert all_keys(keeper.index) == {1, 3}
        assert keeper.index.last_sequence == 3
        await keeper.stop()

    run(test())
    assert [entry["keys"] for entry in logged.entries if "keys" in entry] == [[2]]
