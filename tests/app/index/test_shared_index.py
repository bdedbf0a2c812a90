"""How keepers of several processes keep one index on a Milvus server in step, and what they do when it is away."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest
from index_factories import MODEL, all_keys, crop, is_found
from keeper_factories import MemoryFeed, events, run, until
from structlog.testing import LogCapture

pytest.importorskip("pymilvus", reason="the wheel pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="the wheel milvus-lite is not installed")

from milvus_factories import home_on, nothing
from milvus_lite_process import MilvusLite

from app.index.keeper import IndexKeeper, IndexNotReady
from app.index.milvus import MilvusHome, MilvusServer
from app.index.port import IndexUnreachable
from app.milvus_address import MilvusAddress


class OneTurn:
    """What a database's lock is to processes: one at a time, whoever asks."""

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


def home_at(url: str, turn: OneTurn, gallery_id: str = "testshared") -> MilvusHome:
    return MilvusHome(MilvusServer(MilvusAddress.parse(url)), gallery_id, MODEL, turn)


@pytest.mark.parametrize("seed", range(2))
def test_keepers_that_share_an_index_agree_through_changes_of_all_of_them(milvus_lite: str, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    gallery_id = f"test{token_hex(8)}"

    async def test(homes: list[MilvusHome]) -> None:
        turn = OneTurn()
        feed = MemoryFeed()
        feed.add(*range(1, 6))
        for home in homes:
            home.turn = turn
        keepers = [IndexKeeper(feed, home, poll_seconds=0.01) for home in homes]
        await asyncio.gather(*(keeper.start() for keeper in keepers))
        assert feed.row_batches == 3, "one of them filled it, the others found it"

        async def writer(keeper: IndexKeeper, first: int) -> None:
            for key in range(first, first + 15):
                feed.add(key)
                await keeper.catch_up()
                if rng.random() < 0.5:
                    feed.remove(key)
                    await keeper.catch_up()
                    assert not await asyncio.to_thread(is_found, rng.choice(keepers).index, key)
                else:
                    assert await asyncio.to_thread(is_found, rng.choice(keepers).index, key)

        await asyncio.gather(*(writer(keeper, 100 * n) for n, keeper in enumerate(keepers, 1)))
        for keeper in keepers:
            assert all_keys(keeper.index) == feed.crops.keys()
            assert keeper.index.last_sequence == feed.log[-1].sequence
        for keeper in keepers:
            await keeper.stop()

    with ExitStack() as stack:
        homes = [stack.enter_context(home_on(milvus_lite, gallery_id)) for _ in range(3)]
        run(test(homes))


def test_the_next_process_goes_on_where_the_last_one_ended(own_server: MilvusLite) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2)
        keeper = IndexKeeper(feed, home_at(own_server.url, OneTurn()))
        await keeper.start()
        await keeper.stop()
        own_server.stop()
        own_server.start()
        feed.add(3)
        feed.remove(1)
        feed.row_batches = 0
        keeper = IndexKeeper(feed, home_at(own_server.url, OneTurn()))
        await keeper.start()
        assert all_keys(keeper.index) == {2, 3}
        assert feed.row_batches == 0
        await keeper.stop()

    run(test())


@pytest.mark.parametrize("change", ["trimmed", "replaced"])
def test_it_is_rebuilt_where_the_database_does_not_fit_it(
    own_server: MilvusLite, logged: LogCapture, change: str
) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2, 3)
        turn = OneTurn()
        keepers = [IndexKeeper(feed, home_at(own_server.url, turn), poll_seconds=60) for _ in range(2)]
        for keeper in keepers:
            await keeper.start()
        if change == "trimmed":
            feed.add(4, 5)
            feed.remove(1)
            feed.trimmed_to = 5
        else:
            feed.crops.clear()
            feed.log.clear()
            feed.add(11, 12)
        await asyncio.gather(*(keeper.catch_up() for keeper in keepers))
        for keeper in keepers:
            assert all_keys(keeper.index) == feed.crops.keys()
            await keeper.stop()

    run(test())
    assert events(logged).count("is rebuilt") == 1, "the one that came second finds what the first one built"


def test_while_its_server_is_away_it_is_not_ready_and_says_why_and_then_it_goes_on(
    own_server: MilvusLite, logged: LogCapture
) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1)
        keeper = IndexKeeper(feed, home_at(own_server.url, OneTurn()), poll_seconds=0.05)
        await keeper.start()
        own_server.stop()
        await until(lambda: not keeper.ready)
        with pytest.raises(IndexNotReady, match=f"milvus://127.0.0.1:{own_server.port}"):
            _ = keeper.index
        with pytest.raises(IndexUnreachable):
            await keeper.catch_up()
        feed.add(2)
        own_server.start()
        await until(lambda: keeper.ready)
        await keeper.catch_up()
        assert all_keys(keeper.index) == {1, 2}
        await keeper.stop()

    run(test())
    assert "follows the database again" in events(logged)


def test_a_server_that_was_started_anew_unnoticed_is_searched_as_before(own_server: MilvusLite) -> None:
    with home_on(own_server.url) as home:
        index = asyncio.run(home.rebuilt(nothing))
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
                time.sleep(0.05)


def test_an_index_whose_server_lost_its_data_is_built_again(own_server: MilvusLite, logged: LogCapture) -> None:
    async def test() -> None:
        feed = MemoryFeed()
        feed.add(1, 2)
        keeper = IndexKeeper(feed, home_at(own_server.url, OneTurn()), poll_seconds=0.05)
        await keeper.start()
        own_server.stop()
        shutil.rmtree(own_server.folder)
        own_server.start()
        await until(lambda: "is rebuilt" in events(logged) and keeper.ready)
        assert all_keys(keeper.index) == {1, 2}
        await keeper.stop()

    run(test())


def test_a_server_that_is_not_there_is_told_by_its_address_and_no_password() -> None:
    with pytest.raises(
        IndexUnreachable, match=r"Milvus at milvus://127\.0\.0\.1:9/people .*PASSERBY_INDEX_URL"
    ) as told:
        MilvusServer(MilvusAddress.parse("milvus://root:hidden@127.0.0.1:9/people"))
    assert "hidden" not in str(told.value)
