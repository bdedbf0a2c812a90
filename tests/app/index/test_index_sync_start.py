"""How the index sync opens or rebuilds the index, from nothing, a snapshot or the database's rows."""

import asyncio
from pathlib import Path

import pytest

from app.index.faiss_index import FaissIndex, Tuning
from app.index.sync import IndexNotReady
from tests.app.index.index_factories import MODEL, all_keys, store_in
from tests.app.index.sync_factories import MemoryChangeLog, events, save_snapshot, sync_of
from tests.app.logged import Logged
from tests.app.waiting import eventually


async def test_it_starts_with_an_empty_database(tmp_path: Path) -> None:
    sync = sync_of(MemoryChangeLog(), tmp_path)
    assert not sync.ready
    with pytest.raises(IndexNotReady):
        _ = sync.index
    await sync.start()
    assert sync.ready
    assert (sync.index.size, sync.index.last_sequence) == (0, 0)
    await sync.stop()
    assert store_in(tmp_path).newest(MODEL) is None


async def test_it_starts_from_the_rows_if_there_is_no_snapshot(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3, 4, 5)
    change_log.remove(2)
    change_log.trimmed_to = 6
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    assert all_keys(sync.index) == {1, 3, 4, 5}
    assert sync.index.last_sequence == 6
    await sync.stop()


async def test_a_change_committed_while_the_rows_are_read_is_not_lost(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3, 4)

    def others_write() -> None:
        change_log.during_rows = None
        change_log.add(5)
        change_log.remove(1, 4)

    change_log.during_rows = others_write
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    await sync.catch_up()
    assert all_keys(sync.index) == {2, 3, 5}
    assert sync.index.last_sequence == 7
    await sync.stop()


async def test_it_starts_from_a_snapshot_and_the_changes_after_it(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(*range(1, 4))
    await save_snapshot(tmp_path, change_log)
    change_log.add(*range(4, 1200))
    change_log.remove(2, 1000)

    sync = sync_of(change_log, tmp_path)
    await sync.start()
    assert all_keys(sync.index) == change_log.crops.keys()
    assert change_log.row_batches == 0
    await sync.stop()


async def _is_built_from_the_rows(change_log: MemoryChangeLog, folder: Path, keys: set[int]) -> None:
    sync = sync_of(change_log, folder)
    await sync.start()
    assert all_keys(sync.index) == keys
    assert change_log.row_batches == 1
    await sync.stop()


async def test_it_starts_from_the_rows_if_all_snapshots_are_damaged(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    for key in (1, 2):
        change_log.add(key)
        await save_snapshot(tmp_path, change_log)
    for path in tmp_path.glob("*/embeddings.f16"):
        path.write_bytes(path.read_bytes()[:-1])

    await _is_built_from_the_rows(change_log, tmp_path, {1, 2})
    assert events(logged).count("damaged") == 2
    newest = store_in(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {1, 2}


async def test_it_rebuilds_the_index_if_changes_were_trimmed(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    await save_snapshot(tmp_path, change_log)
    change_log.add(3, 4)
    change_log.remove(1)
    change_log.trimmed_to = 4

    sync = sync_of(change_log, tmp_path, poll=0.01)
    await sync.start()
    assert not (tmp_path / "00000001").exists(), "a snapshot that is too old is deleted"
    assert all_keys(sync.index) == {2, 3, 4}
    assert sync.index.last_sequence == 5
    await eventually((tmp_path / "00000001").exists)  # so that the next start need not rebuild
    await sync.stop()
    assert "trimmed to 4" in events(logged)


async def test_it_rebuilds_the_index_if_changes_are_trimmed_between_two_reads(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.add(3, 4)

    async def trim() -> None:
        change_log.trimmed_to = 3

    change_log.after_read = trim
    await sync.catch_up()
    assert all_keys(sync.index) == {1, 2, 3, 4}
    assert sync.index.last_sequence == 4
    await sync.stop()


async def test_it_rebuilds_the_index_again_if_changes_are_trimmed_during_a_rebuild(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3)
    sync = sync_of(change_log, tmp_path)
    await sync.start()
    change_log.add(4, 5)
    change_log.trimmed_to = 5

    def write_and_trim() -> None:
        change_log.during_rows = None
        change_log.add(6, 7)
        change_log.remove(1)
        change_log.trimmed_to = 7

    change_log.during_rows = write_and_trim
    await sync.catch_up()
    await sync.catch_up()
    assert all_keys(sync.index) == {2, 3, 4, 5, 6, 7}
    await sync.stop()


async def test_a_snapshot_of_a_database_that_was_replaced_is_not_used_now_or_later(
    tmp_path: Path, logged: Logged
) -> None:
    former = MemoryChangeLog()
    former.add(*range(1, 11))
    await save_snapshot(tmp_path, former)
    change_log = MemoryChangeLog()
    change_log.add(21, 22)

    async def process_that_is_killed() -> None:
        sync = sync_of(change_log, tmp_path)
        await sync.start()
        assert all_keys(sync.index) == {21, 22}

    async def next_process() -> None:
        sync = sync_of(change_log, tmp_path)
        await sync.start()
        assert all_keys(sync.index) == change_log.crops.keys()
        await sync.stop()

    await process_that_is_killed()
    assert "replaced or restored" in events(logged)
    change_log.add(*range(23, 43))  # now the database has more changes than the snapshot
    await next_process()


async def test_it_rebuilds_the_index_if_the_running_database_is_replaced(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3)
    sync = sync_of(change_log, tmp_path, snapshot_every=1, poll=0.01)
    await sync.start()
    await eventually(lambda: len(list(tmp_path.glob("0*"))) == 1)
    change_log.crops.clear()
    change_log.changes.clear()
    change_log.add(11, 12)
    ready_during_rebuild: list[bool] = []
    change_log.during_rows = lambda: ready_during_rebuild.append(sync.ready)
    await eventually(lambda: sync.ready and sync.index.last_sequence == 2)
    assert all_keys(sync.index) == {11, 12}
    assert ready_during_rebuild == [False]
    await sync.stop()
    assert "replaced or restored" in events(logged)
    newest = store_in(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == {11, 12}


async def test_a_start_that_fails_leaves_it_not_ready_and_can_be_repeated(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3)

    def fail() -> None:
        change_log.error = ConnectionError("the database is gone")

    change_log.during_rows = fail
    sync = sync_of(change_log, tmp_path)
    with pytest.raises(ConnectionError):
        await sync.start()
    assert not sync.ready
    await sync.stop()
    change_log.error = change_log.during_rows = None
    await sync.catch_up()
    assert all_keys(sync.index) == {1, 2, 3}


async def test_it_is_not_ready_before_all_changes_are_applied(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    await save_snapshot(tmp_path, change_log)
    change_log.add(2)

    sync = sync_of(change_log, tmp_path)
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        has_read.set()
        await go_on.wait()

    change_log.after_read = block

    starting = asyncio.create_task(sync.start())
    await has_read.wait()
    assert not sync.ready
    go_on.set()
    await starting
    assert all_keys(sync.index) == {1, 2}
    await sync.stop()


async def test_a_gallery_that_outgrows_the_buffer_is_built_anew_while_the_index_answers(
    tmp_path: Path, logged: Logged
) -> None:
    tuning = Tuning(exact_limit=20, flush_rows=5)
    change_log = MemoryChangeLog()
    change_log.add(*range(1, 20))

    sync = sync_of(change_log, tmp_path, poll=0.01, tuning=tuning)
    await sync.start()
    small = sync.index
    answered: list[set[int]] = []

    def others_write_and_search() -> None:
        if len(answered) < 3:
            change_log.add(100 + len(answered))
            change_log.remove(1 + len(answered))
            answered.append(all_keys(sync.index))

    change_log.during_rows = others_write_and_search
    change_log.add(*range(20, 60))
    await eventually(lambda: sync.index is not small)
    assert isinstance(sync.index, FaissIndex)
    assert sync.index.segment_size > 0
    assert all(set(range(4, 20)) <= keys for keys in answered)
    assert len(answered) == 3
    await sync.catch_up()
    assert all_keys(sync.index) == change_log.crops.keys()
    await eventually((tmp_path / "00000001").exists)
    await sync.stop()
    restored = store_in(tmp_path, tuning=tuning).newest(MODEL)
    assert restored is not None
    assert all_keys(restored) == change_log.crops.keys()
    assert "a new one is built while it answers" in events(logged)


async def test_stopping_cancels_the_building_of_a_new_index(tmp_path: Path) -> None:
    change_log = MemoryChangeLog()
    change_log.add(*range(1, 100))

    sync = sync_of(change_log, tmp_path, poll=0.01, tuning=Tuning(exact_limit=200))
    await sync.start()
    reading, never = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        reading.set()
        await never.wait()

    change_log.before_rows_by_key = block
    change_log.add(*range(100, 300))
    await reading.wait()
    await asyncio.wait_for(sync.stop(), 10)
    newest = store_in(tmp_path).newest(MODEL)
    assert newest is not None
    assert all_keys(newest) == set(range(1, 300))


async def test_a_failed_rebuild_is_logged_once_and_tried_again(tmp_path: Path, logged: Logged) -> None:
    change_log = MemoryChangeLog()

    sync = sync_of(change_log, tmp_path, poll=0.01, tuning=Tuning(exact_limit=20, flush_rows=5))
    await sync.start()
    failures = 0

    async def fail() -> None:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise OSError("the disk is full")

    change_log.before_rows_by_key = fail
    change_log.add(*range(1, 60))
    await eventually(lambda: isinstance(sync.index, FaissIndex) and sync.index.segment_size == 59)
    await sync.stop()
    assert events(logged).count("maintenance of the index failed") == 1
    assert events(logged).count("works again") == 1


async def test_a_snapshot_of_an_earlier_version_is_deleted_and_the_index_built_from_the_rows(
    tmp_path: Path, logged: Logged
) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    await save_snapshot(tmp_path, change_log)
    manifest = tmp_path / "00000001" / "snapshot.json"
    manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))
    old = manifest.parent.rename(tmp_path / "00000007")

    await _is_built_from_the_rows(change_log, tmp_path, {1, 2})
    assert "of an earlier version is deleted" in events(logged)
    assert not old.exists()
    assert "damaged" not in events(logged)


async def test_an_index_that_lacks_more_changes_than_it_has_crops_is_built_from_the_rows(
    tmp_path: Path, logged: Logged
) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    await save_snapshot(tmp_path, change_log)
    for number in range(2, 20_003):
        change_log.add(number)
        change_log.remove(number)

    sync = sync_of(change_log, tmp_path)
    await sync.start()
    assert all_keys(sync.index) == {1}
    assert (sync.index.last_sequence, change_log.row_batches) == (40_003, 1)
    await sync.stop()
    assert "the index lacks 40,002 changes" in events(logged)
