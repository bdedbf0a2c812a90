"""How the keeper stays in step with its feed, and when it saves snapshots."""

import asyncio
from pathlib import Path

import pytest
from index_factories import MODEL, all_keys, crop, embedding, is_found, store_in
from keeper_factories import MemoryFeed, events, keeper_of, run, save_snapshot, until
from structlog.testing import LogCapture


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


def test_a_hint_makes_it_look_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path, poll=60)
        await keeper.start()
        for key in (1, 2):
            feed.add(key)
            feed.hint.set()
            await until(lambda key=key: keeper.index.size == key)  # type: ignore[misc]
        await keeper.stop()

    run(test())


def test_a_hint_that_comes_during_a_look_is_not_lost(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path, poll=60)
        await keeper.start()

        async def commit_too_late() -> None:
            feed.after_look = None
            feed.add(1)
            feed.hint.set()
            await asyncio.sleep(0.05)

        feed.after_look = commit_too_late
        feed.hint.set()
        await until(lambda: keeper.index.size == 1)
        await keeper.stop()

    run(test())


def test_where_hints_end_it_goes_on_looking_now_and_then(tmp_path: Path, logged: LogCapture) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path, poll=0.01)
        await keeper.start()
        feed.hints_error = ValueError("nobody thought of this")
        feed.hint.set()
        await until(lambda: "there are no hints any more" in events(logged))
        feed.add(1)
        await until(lambda: keeper.index.size == 1)
        await keeper.stop()

    run(test())


def test_it_trims_until_there_is_nothing_and_then_rests(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.trim_results = [True, True]
        keeper = keeper_of(feed, tmp_path, poll=60)
        await keeper.start()
        feed.hint.set()
        await until(lambda: feed.trims == 3)  # much sooner than it would look by itself
        for _ in range(5):
            feed.hint.set()
            await asyncio.sleep(0.02)
        assert feed.trims == 3
        await keeper.stop()

    run(test())


def test_it_trims_again_after_a_while(tmp_path: Path) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        keeper = keeper_of(feed, tmp_path, poll=0.01, trim=0.05)
        await keeper.start()
        await until(lambda: feed.trims == 3)
        await keeper.stop()

    run(test())


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
    newest = store_in(tmp_path).newest(MODEL)
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
