"""How the keeper comes by its index: from nothing, a snapshot or the rows, whatever was lost or replaced."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from index_factories import MODEL, all_keys, damage, is_found, store_in
from keeper_factories import MemoryFeed, events, keeper_of, run, save_snapshot, until
from structlog.testing import LogCapture
from tier_factories import SMALL

from app.index.keeper import IndexNotReady
from app.index.tuning import Tuning


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
    assert store_in(tmp_path).newest(MODEL) is None


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
    newest = store_in(tmp_path).newest(MODEL)
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
        assert not (tmp_path / "00000001").exists(), "what cannot be caught up with is not kept"
        assert all_keys(keeper.index) == {2, 3, 4}
        assert keeper.index.last_sequence == 5
        await until((tmp_path / "00000001").exists)  # the next start need not do it again
        await keeper.stop()

    run(test())
    assert "no longer holds all changes" in events(logged)


def test_it_rebuilds_the_index_where_changes_are_trimmed_between_two_looks(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2)
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.add(3, 4)

        async def trim() -> None:
            feed.trimmed_to = 3

        feed.after_look = trim
        await keeper.catch_up()
        assert all_keys(keeper.index) == {1, 2, 3, 4}
        assert keeper.index.last_sequence == 4
        await keeper.stop()

    run(test())


def test_it_rebuilds_the_index_again_where_changes_are_trimmed_during_a_rebuild(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3)
        keeper = keeper_of(feed, tmp_path)
        await keeper.start()
        feed.add(4, 5)
        feed.trimmed_to = 5

        def write_and_trim() -> None:
            feed.during_rows = None
            feed.add(6, 7)
            feed.remove(1)
            feed.trimmed_to = 7

        feed.during_rows = write_and_trim
        await keeper.catch_up()
        await keeper.catch_up()
        assert all_keys(keeper.index) == {2, 3, 4, 5, 6, 7}
        await keeper.stop()

    run(test())


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
    newest = store_in(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {11, 12}


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


def test_embeddings_that_the_disk_damaged_are_loaded_again(tmp_path: Path, logged: LogCapture) -> None:
    tuning = replace(SMALL, fresh_limit=Tuning.fresh_limit)
    feed = MemoryFeed()
    feed.add(*range(1, 61))
    save_snapshot(tmp_path, feed, tuning)
    damage(tmp_path / "00000001" / "embeddings.rows", row=30)

    async def test() -> None:
        keeper = keeper_of(feed, tmp_path, poll=0.01, tuning=tuning)
        await keeper.start()
        await until(lambda: "damaged embeddings" in events(logged))
        await until(lambda: is_found(keeper.index, 31))
        assert all_keys(keeper.index) == set(range(1, 61))
        assert feed.row_batches == 0
        await keeper.stop()

    run(test())
