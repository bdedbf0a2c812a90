"""How the index sync follows the change log, and when it saves snapshots."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from tests.app.index.index_factories import MODEL, all_keys, crop, embedding, is_found, store_in
from tests.app.index.sync_factories import MemoryChangeLog, events, save_snapshot, sync_of
from tests.app.logged import Logged
from tests.app.waiting import eventually


async def test_after_catching_up_everything_committed_before_is_found(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path)
    await sync.start()

    async def writer(first: int) -> None:
        for key in range(first, first + 20):
            change_log.add(key)
            await sync.catch_up()
            assert is_found(sync.index, key)
            if key % 3 == 0:
                change_log.remove(key)
                await sync.catch_up()
                assert key not in all_keys(sync.index)
            await asyncio.sleep(0)

    await asyncio.gather(*(writer(first) for first in range(0, 200, 20)))
    assert all_keys(sync.index) == change_log.crops.keys()
    await sync.stop()


async def test_callers_that_commit_during_a_run_share_the_next_one(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        has_read.set()
        await go_on.wait()

    change_log.after_read = block
    reads = change_log.reads
    early = asyncio.create_task(sync.catch_up())
    await has_read.wait()  # this run has read an empty change log
    change_log.add(1)
    late = [asyncio.create_task(sync.catch_up()) for _ in range(5)]
    await asyncio.sleep(0.01)
    go_on.set()
    await early
    await asyncio.gather(*late)
    assert is_found(sync.index, 1)
    assert change_log.reads == reads + 2
    await sync.stop()


async def test_cancelling_a_caller_does_not_affect_the_others(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.after_read = lambda: asyncio.sleep(0.05)
    change_log.add(1)
    first = asyncio.create_task(sync.catch_up())
    second = asyncio.create_task(sync.catch_up())
    await asyncio.sleep(0.01)
    first.cancel()
    await second
    assert first.cancelled()
    assert is_found(sync.index, 1)
    await sync.stop()


async def test_an_error_of_the_change_log_reaches_the_caller_and_the_next_call_works(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.add(2)
    change_log.error = ConnectionError("the database is gone")
    with pytest.raises(ConnectionError):
        await sync.catch_up()
    assert sync.ready
    assert all_keys(sync.index) == {1}
    change_log.error = None
    await sync.catch_up()
    assert all_keys(sync.index) == {1, 2}
    await sync.stop()


async def test_changes_of_other_processes_are_applied_also_after_an_error(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path, poll=0.01)
    await sync.start()
    change_log.add(1)
    await eventually(lambda: sync.index.size == 1)
    change_log.error = ConnectionError("the database is gone")
    await asyncio.sleep(0.1)
    change_log.error = None
    change_log.add(2)
    await eventually(lambda: sync.index.size == 2)
    await sync.stop()
    assert events(logged).count("cannot follow") == 1
    assert events(logged).count("follows the database again") == 1


async def test_a_notification_polls_at_once(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path, poll=60)
    await sync.start()
    for key in (1, 2):
        change_log.add(key)
        change_log.notification.set()
        await eventually(partial(is_found, sync.index, key))
    await sync.stop()


async def test_a_notification_during_a_poll_is_not_lost(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path, poll=60)
    await sync.start()

    async def commit_too_late() -> None:
        change_log.after_read = None
        change_log.add(1)
        change_log.notification.set()
        await asyncio.sleep(0.05)

    change_log.after_read = commit_too_late
    change_log.notification.set()
    await eventually(lambda: sync.index.size == 1)
    await sync.stop()


async def test_it_goes_on_polling_if_notifications_fail(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path, poll=0.01)
    await sync.start()
    change_log.notifications_error = ValueError("unexpected")
    change_log.notification.set()
    await eventually(lambda: "notifications of changes failed" in events(logged))
    change_log.add(1)
    await eventually(lambda: sync.index.size == 1)
    await sync.stop()


async def test_it_goes_on_polling_if_the_index_is_lost_during_a_trim(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    sync = sync_of(change_log, tmp_path, poll=0.01)

    async def lose_index() -> None:
        change_log.during_trim = None
        change_log.add(2, 3)
        change_log.trimmed_to = 3  # another caller finds that the index lacks changes, and cannot rebuild it
        change_log.before_rows_by_key = fail
        change_log.during_rows = fail_now
        with pytest.raises(OSError, match="the database is gone"):
            await sync.catch_up()
        assert not sync.ready

    async def fail() -> None:
        fail_now()

    def fail_now() -> None:
        change_log.during_rows = change_log.before_rows_by_key = None
        raise OSError("the database is gone")

    await sync.start()
    change_log.during_trim = lose_index
    change_log.notification.set()
    await eventually(lambda: change_log.during_trim is None and sync.ready and sync.index.size == 3)
    await sync.stop()


async def test_it_trims_until_there_is_nothing_and_then_pauses(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.trim_results = [True, True]
    sync = sync_of(change_log, tmp_path, poll=60)
    await sync.start()
    change_log.notification.set()
    await eventually(lambda: change_log.trims == 3)  # much sooner than the next poll
    for _ in range(5):
        change_log.notification.set()
        await asyncio.sleep(0.02)
    assert change_log.trims == 3
    await sync.stop()


async def test_it_trims_again_after_a_while(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path, poll=0.01, trim=0.05)
    await sync.start()
    await eventually(lambda: change_log.trims == 3)
    await sync.stop()


async def test_a_snapshot_is_saved_at_the_stop_if_anything_changed(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    await save_snapshot(tmp_path, change_log)
    change_log.add(2)

    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.add(3)
    await sync.catch_up()
    await sync.stop()
    newest = store_in(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {1, 2, 3}
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    assert change_log.row_batches == 0
    await sync.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


async def test_a_snapshot_is_saved_after_a_number_of_changes(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    await save_snapshot(tmp_path, change_log)

    sync = sync_of(change_log, tmp_path, snapshot_every=5, poll=0.01)
    await sync.start()
    change_log.add(2, 3, 4, 5)
    await eventually(lambda: sync.index.size == 5)
    await asyncio.sleep(0.1)
    assert not (tmp_path / "00000002").exists()
    change_log.add(6)
    await eventually((tmp_path / "00000002").exists)
    await sync.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


def _saved_sizes(folder: Path) -> list[int]:
    """The number of crops in each snapshot; none while one is being deleted."""
    try:
        return [json.loads(path.read_bytes())["state"]["size"] for path in sorted(folder.glob("0*/snapshot.json"))]
    except FileNotFoundError:
        return []


async def test_a_deleted_crop_leaves_the_snapshots_after_a_while_in_a_gallery_with_few_changes(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    await save_snapshot(tmp_path, change_log)
    change_log.add(3)
    await save_snapshot(tmp_path, change_log)
    assert _saved_sizes(tmp_path) == [2, 3]

    sync = sync_of(change_log, tmp_path, poll=0.01, erase=0.3)
    await sync.start()
    change_log.remove(1)
    await sync.catch_up()
    await eventually(lambda: _saved_sizes(tmp_path) == [2])
    change_log.add(4)
    await sync.catch_up()
    await sync.stop()
    assert _saved_sizes(tmp_path) == [2, 3]


async def test_a_crop_that_was_deleted_while_no_process_ran_leaves_the_snapshots(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    await save_snapshot(tmp_path, change_log)
    change_log.remove(1)
    sync = sync_of(change_log, tmp_path, poll=0.01, erase=0.3)
    await sync.start()
    await eventually(lambda: _saved_sizes(tmp_path) == [1])
    await sync.stop()


async def test_an_old_snapshot_stays_while_no_crop_is_deleted(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    await save_snapshot(tmp_path, change_log)
    sync = sync_of(change_log, tmp_path, poll=0.01, erase=0.02)
    await sync.start()
    change_log.add(2)
    await sync.catch_up()
    await asyncio.sleep(0.1)
    assert _saved_sizes(tmp_path) == [1]
    await sync.stop()


async def test_an_error_while_saving_does_not_stop_the_sync(tmp_path: Path, logged: Logged) -> None:
    (tmp_path / "snapshots").write_text("a file where the folder should be")
    change_log = MemoryChangeLog()
    change_log.add(1)
    sync = sync_of(change_log, tmp_path / "snapshots" / "deeper", snapshot_every=2, poll=0.01)
    await sync.start()
    await eventually(lambda: "could not be saved" in events(logged))
    await asyncio.sleep(0.1)
    assert events(logged).count("could not be saved") == 1
    change_log.add(2)
    await eventually(lambda: sync.index.size == 2)
    await sync.stop()


async def test_a_crop_with_an_invalid_embedding_does_not_stop_the_sync(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.add(1, 2, 3)
    change_log.changes[1] = crop(2, sequence=2, vector=embedding(2) * float("nan"))
    await sync.catch_up()
    assert all_keys(sync.index) == {1, 3}
    assert sync.index.last_sequence == 3
    await sync.stop()
    assert [entry["keys"] for entry in logged if "keys" in entry] == [[2]]
