"""Index syncs of several processes that share an index on a Milvus server, and outages of that server."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from tests.app.index.index_factories import MODEL, all_keys, crop, is_found
from tests.app.index.sync_factories import MemoryChangeLog, events
from tests.app.logged import Logged
from tests.app.waiting import eventually

pytest.importorskip("pymilvus", reason="the wheel pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="the wheel milvus-lite is not installed")

from app.index.milvus import MilvusIndexStorage, MilvusServer
from app.index.port import IndexUnreachable
from app.index.sync import IndexNotReady, IndexSync
from app.milvus_address import MilvusAddress
from tests.app.index.milvus_factories import nothing, storage_on
from tests.app.milvus_lite_process import MilvusLite


class ExclusiveLock:
    """Stands for the database's lock among processes."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        async with self._lock:
            yield


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MilvusLite]:
    """A server that a test may stop."""
    server = MilvusLite(tmp_path / "lite")
    yield server
    server.stop()


def storage_at(url: str, write_lock: ExclusiveLock, gallery_id: str = "testshared") -> MilvusIndexStorage:
    return MilvusIndexStorage(MilvusServer(MilvusAddress.parse(url)), gallery_id, MODEL, write_lock)


@pytest.mark.parametrize("offset", range(2))
async def test_syncs_that_share_an_index_agree_while_all_of_them_change_it(
    milvus_lite: str, seed: int, offset: int
) -> None:
    rng = random.Random(seed + offset)
    gallery_id = f"test{token_hex(8)}"

    async def test(storages: list[MilvusIndexStorage]) -> None:
        write_lock = ExclusiveLock()
        change_log = MemoryChangeLog()
        change_log.add(*range(1, 6))
        for storage in storages:
            storage.write_lock = write_lock
        syncs = [IndexSync(change_log, storage, poll_seconds=0.01) for storage in storages]
        await asyncio.gather(*(sync.start() for sync in syncs))
        assert change_log.row_batches == 3, "only the first sync built the index"

        async def writer(sync: IndexSync, first: int) -> None:
            for key in range(first, first + 15):
                change_log.add(key)
                await sync.catch_up()
                if rng.random() < 0.5:
                    change_log.remove(key)
                    await sync.catch_up()
                    assert not await asyncio.to_thread(is_found, rng.choice(syncs).index, key)
                else:
                    assert await asyncio.to_thread(is_found, rng.choice(syncs).index, key)

        await asyncio.gather(*(writer(sync, 100 * n) for n, sync in enumerate(syncs, 1)))
        for sync in syncs:
            assert all_keys(sync.index) == change_log.crops.keys()
            assert sync.index.last_sequence == change_log.changes[-1].sequence
        for sync in syncs:
            await sync.stop()

    with ExitStack() as stack:
        storages = [stack.enter_context(storage_on(milvus_lite, gallery_id)) for _ in range(3)]
        await test(storages)


async def test_the_next_process_continues_from_the_last_change(own_server: MilvusLite) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    sync = IndexSync(change_log, storage_at(own_server.url, ExclusiveLock()))
    await sync.start()
    await sync.stop()
    own_server.stop()
    own_server.start()
    change_log.add(3)
    change_log.remove(1)
    change_log.row_batches = 0
    sync = IndexSync(change_log, storage_at(own_server.url, ExclusiveLock()))
    await sync.start()
    assert all_keys(sync.index) == {2, 3}
    assert change_log.row_batches == 0
    await sync.stop()


@pytest.mark.parametrize("change", ["trimmed", "replaced"])
async def test_it_is_rebuilt_where_the_database_does_not_fit_it(
    own_server: MilvusLite, logged: Logged, change: str
) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2, 3)
    write_lock = ExclusiveLock()
    syncs = [IndexSync(change_log, storage_at(own_server.url, write_lock), poll_seconds=60) for _ in range(2)]
    for sync in syncs:
        await sync.start()
    if change == "trimmed":
        change_log.add(4, 5)
        change_log.remove(1)
        change_log.trimmed_to = 5
    else:
        change_log.crops.clear()
        change_log.changes.clear()
        change_log.add(11, 12)
    await asyncio.gather(*(sync.catch_up() for sync in syncs))
    for sync in syncs:
        assert all_keys(sync.index) == change_log.crops.keys()
        await sync.stop()
    assert events(logged).count("is rebuilt") == 1, "the second sync opens the index that the first one rebuilt"


async def test_it_is_not_ready_during_an_outage_of_the_server_and_recovers(
    own_server: MilvusLite, logged: Logged
) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1)
    sync = IndexSync(change_log, storage_at(own_server.url, ExclusiveLock()), poll_seconds=0.05)
    await sync.start()
    own_server.stop()
    await eventually(lambda: not sync.ready)
    with pytest.raises(IndexNotReady, match=f"milvus://127.0.0.1:{own_server.port}"):
        _ = sync.index
    with pytest.raises(IndexUnreachable):
        await sync.catch_up()
    change_log.add(2)
    own_server.start()
    await eventually(lambda: sync.ready)
    await sync.catch_up()
    assert all_keys(sync.index) == {1, 2}
    await sync.stop()
    assert "follows the database again" in events(logged)


async def test_a_search_works_after_the_server_was_restarted(own_server: MilvusLite) -> None:
    with storage_on(own_server.url) as storage:
        index = await storage.rebuild(nothing)
        index.apply([crop(1), crop(2)])
        own_server.stop()
        own_server.start()
        deadline = time.monotonic() + 30
        while True:  # the connection comes back soon
            try:
                assert all_keys(index) == {1, 2}
                break
            except IndexUnreachable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


async def test_an_index_whose_server_lost_its_data_is_rebuilt(own_server: MilvusLite, logged: Logged) -> None:
    change_log = MemoryChangeLog()
    change_log.add(1, 2)
    sync = IndexSync(change_log, storage_at(own_server.url, ExclusiveLock()), poll_seconds=0.05)
    await sync.start()
    own_server.stop()
    shutil.rmtree(own_server.folder)
    own_server.start()
    await eventually(lambda: "is rebuilt" in events(logged) and sync.ready)
    assert all_keys(sync.index) == {1, 2}
    await sync.stop()


def test_the_error_for_a_missing_server_has_its_address_but_not_the_password() -> None:
    with pytest.raises(
        IndexUnreachable, match=r"Milvus at milvus://127\.0\.0\.1:9/people .*PASSERBY_INDEX_URL"
    ) as raised:
        MilvusServer(MilvusAddress.parse("milvus://root:hidden@127.0.0.1:9/people"))
    assert "hidden" not in str(raised.value)
