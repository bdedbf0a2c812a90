"""The change log in the database: in order whoever writes, told to who listens, and trimmed without a lie."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import structlog
from sqlalchemy import make_url
from structlog.testing import LogCapture

from app import listening
from app.database import Database
from app.gallery.feed import DatabaseChangeFeed
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Crop
from app.index.faiss_index import FaissIndex
from app.index.keeper import ChangesTrimmed, IndexKeeper
from app.index.port import Filter, Removal
from app.index.snapshot_home import SnapshotHome
from app.index.snapshots import SnapshotStore
from app.kit.ids import new_id
from model.architecture import EMBEDDING_DIM

MODEL, OTHER = "tiny-0123", "other-4567"
INSERT = "INSERT INTO changes (model_id, crop_key, what) VALUES (%s, %s, -1)"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(url)
    await database.migrate()
    yield database
    await database.close()


def feed_of(database: Database, kept: int = 1_000_000, model_id: str = MODEL) -> DatabaseChangeFeed:
    return DatabaseChangeFeed(database, model_id, kept)


async def add_crops(database: Database, count: int, model_id: str = MODEL) -> list[Crop]:
    """Store crops with embeddings, which makes a change of each."""
    async with database.write() as session:
        repository = GalleryRepository(session)
        await repository.add_cameras({"gate"}, 0)
        facts = {"media_type": "image/jpeg", "width": 64, "height": 128, "bytes": 0}
        shas = [new_id() for _ in range(count)]
        await repository.add_images(dict.fromkeys(shas, facts))
        crops = [
            Crop(
                id=new_id(),
                camera_id="gate",
                captured_at=0,
                utc_offset=0,
                attributes={},
                image_sha256=sha,
                created_at=0,
            )
            for sha in shas
        ]
        await repository.add_crops(crops)
        vectors = {crop.key: np.eye(1, EMBEDDING_DIM, crop.key, dtype=np.float32)[0] for crop in crops}
        await repository.add_embeddings(vectors, model_id)
    return crops


async def delete(database: Database, crop: Crop) -> None:
    async with database.write() as session:
        await GalleryRepository(session).delete_crop(crop)


async def trim_all(feed: DatabaseChangeFeed) -> None:
    while await feed.trim():
        pass


async def numbers(feed: DatabaseChangeFeed, after: int = 0) -> list[int]:
    return [change.sequence for change in await feed.changes_after(after, 1000)]


def snapshots_in(folder: Path) -> SnapshotHome:
    working = folder / "working"
    return SnapshotHome(
        SnapshotStore(folder, partial(FaissIndex.restore, working=working)), partial(FaissIndex, MODEL, working)
    )


def found(keeper: IndexKeeper) -> set[int]:
    hits = keeper.index.search(np.ones(EMBEDDING_DIM, np.float32), Filter(), 1000).hits
    return {hit.key for hit in hits}


def keys(crops: Collection[Crop]) -> set[int]:
    return {crop.key for crop in crops}


# in order, whoever writes


def follow_two_raw_transactions(
    url: str, second_insert: str, drawn_before: str | None = None
) -> tuple[bool, list[int]]:
    """Two transactions that know nothing of the service, of which the second would commit first.

    Whether the second waits for the first, and the keys of the changes that a reader is told who looks all the time.
    """
    told: list[int] = []
    last = 0

    async def look() -> None:
        nonlocal last
        async with opened(url) as database:
            for change in await feed_of(database).changes_after(last, 10):
                told.append(change.key)
                last = change.sequence

    def commit_second() -> None:
        second.execute(second_insert, (MODEL, 2))
        second.commit()

    run(look())
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        if drawn_before:
            second.execute(drawn_before)  # type: ignore[arg-type]
        first.execute(INSERT, (MODEL, 1))
        committing = threading.Thread(target=commit_second)
        committing.start()
        committing.join(0.5)
        waits = committing.is_alive()
        run(look())
        first.commit()
        committing.join()
        run(look())
    return waits, told


def test_a_transaction_of_somebody_else_waits_for_the_one_before_so_that_no_change_is_skipped(
    postgresql: Callable[[], str],
) -> None:
    assert follow_two_raw_transactions(postgresql(), INSERT) == (True, [1, 2])


def test_without_the_trigger_a_change_would_be_skipped(postgresql: Callable[[], str]) -> None:
    """That the test above shows something."""
    url = postgresql()

    async def as_it_was() -> None:
        async with opened(url):
            pass

    run(as_it_was())
    with psycopg.connect(url) as connection:
        connection.execute("DROP TRIGGER draw_change_sequence ON changes")
        connection.execute("ALTER TABLE changes ALTER COLUMN sequence SET DEFAULT nextval('changes_sequence_seq')")
    waits, told = follow_two_raw_transactions(url, INSERT)
    assert not waits
    assert told == [2]


@pytest.mark.parametrize("number", ["currval('changes_sequence_seq')", "1"])
def test_a_number_that_somebody_gives_or_drew_before_does_not_count(postgresql: Callable[[], str], number: str) -> None:
    url = postgresql()
    insert = f"INSERT INTO changes (sequence, model_id, crop_key, what) VALUES ({number}, %s, %s, -1)"
    drawn_before = "SELECT nextval('changes_sequence_seq')"
    assert follow_two_raw_transactions(url, insert, drawn_before) == (True, [1, 2])


def test_copy_draws_numbers_in_order_too(postgresql: Callable[[], str]) -> None:
    async def test() -> None:
        url = postgresql()
        async with opened(url) as database:
            await add_crops(database, 2)
            copying = "COPY changes (model_id, crop_key, what) FROM STDIN"
            with psycopg.connect(url) as connection, connection.cursor().copy(copying) as copy:
                for key in (7, 8, 9):
                    copy.write_row((MODEL, key, -1))
            assert [change.key for change in await feed_of(database).changes_after(0, 10)] == [1, 2, 7, 8, 9]

    run(test())


def test_somebody_else_waits_for_a_unit_of_work_also_before_that_logs_anything(postgresql: Callable[[], str]) -> None:
    async def test() -> None:
        url = postgresql()
        async with opened(url) as database, database.write():
            with psycopg.connect(url) as connection:
                connection.execute("SET lock_timeout = '200ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    connection.execute(INSERT, (MODEL, 1))

    run(test())


def test_a_deadlock_with_somebody_else_ends_with_an_error_and_is_not_for_ever(postgresql: Callable[[], str]) -> None:
    """Who changes rows before the log may meet a unit of work that has the lock and wants these rows."""

    async def test() -> None:
        url = postgresql()
        async with opened(url) as database:
            (crop,) = await add_crops(database, 1)
            async with await psycopg.AsyncConnection.connect(url) as other:
                await other.execute("UPDATE crops SET track_id = 'x' WHERE key = %s", (crop.key,))
                deleting = asyncio.create_task(delete(database, crop))
                await asyncio.sleep(0.2)
                logging = asyncio.create_task(other.execute(INSERT, (MODEL, crop.key)))
                done, waiting = await asyncio.wait([deleting, logging], return_when="FIRST_EXCEPTION")
                assert "deadlock detected" in str([task.exception() for task in done])
                await other.rollback()
                with suppress(Exception):
                    await asyncio.gather(*waiting)
            await add_crops(database, 1)  # the lock is free

    run(test())


def test_a_unit_of_work_that_reads_sees_one_state(database_url: str) -> None:
    async def test() -> None:
        async with opened(database_url) as database:
            async with database.read() as session:
                repository = GalleryRepository(session)
                assert await repository.last_sequence(MODEL) == 0
                await add_crops(database, 3)
                assert await repository.changes(0, MODEL, 10) == []
            assert await numbers(feed_of(database)) == [1, 2, 3]

    run(test())


# trimming


def test_trimming_keeps_the_newest_changes_of_each_model(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gallery.feed._TRIMMED_AT_ONCE", 2)

    async def test() -> None:
        async with opened(database_url) as database:
            await add_crops(database, 3)
            await add_crops(database, 5, OTHER)
            await add_crops(database, 4)
            feed, other = feed_of(database, kept=4), feed_of(database, kept=4, model_id=OTHER)
            assert [await feed.trim() for _ in range(3)] == [True, True, False]  # two changes at once
            assert await numbers(feed, after=3) == [9, 10, 11, 12]
            assert await numbers(other, after=4) == [5, 6, 7, 8]
            assert await feed.last_sequence() == 12
            assert await other.last_sequence() == 8

    run(test())


def test_trimming_counts_changes_not_numbers(database_url: str) -> None:
    """Between two changes of a model lie those of others."""

    async def test() -> None:
        async with opened(database_url) as database:
            await add_crops(database, 2)
            await add_crops(database, 100, OTHER)
            await add_crops(database, 1)
            assert not await feed_of(database, kept=100).trim()
            assert await numbers(feed_of(database)) == [1, 2, 103]

    run(test())


def test_who_wants_what_was_trimmed_is_told_so_and_nobody_else(database_url: str) -> None:
    async def test() -> None:
        async with opened(database_url) as database:
            await add_crops(database, 10)
            await add_crops(database, 1, OTHER)
            feed = feed_of(database, kept=4)
            await trim_all(feed)
            for sequence in (0, 5):
                with pytest.raises(ChangesTrimmed, match=f"changes {sequence + 1} to 6"):
                    await feed.changes_after(sequence, 1)
            assert await numbers(feed, after=6) == [7, 8, 9, 10]
            assert await numbers(feed, after=10) == []
            assert await numbers(feed_of(database, model_id=OTHER)) == [11]

    run(test())


def test_a_log_that_is_empty_after_trimming_is_still_where_it_was(database_url: str) -> None:
    async def test() -> None:
        async with opened(database_url) as database:
            await add_crops(database, 3)
            feed = feed_of(database, kept=0)
            await trim_all(feed)
            assert await feed.last_sequence() == 3
            assert await feed.changes_after(3, 10) == []
            with pytest.raises(ChangesTrimmed):
                await feed.changes_after(2, 10)
            await add_crops(database, 1)
            assert await feed.last_sequence() == 4
            assert await numbers(feed, after=3) == [4]

    run(test())


def test_several_processes_may_trim_at_once(database_url: str) -> None:
    """The one that decided first and deletes last takes nothing back."""

    async def test() -> None:
        async with opened(database_url) as database, opened(database_url) as second:
            await add_crops(database, 9)
            async with database.write() as session:
                await GalleryRepository(session).trim_changes(MODEL, 7)
            async with second.write() as session:
                await GalleryRepository(session).trim_changes(MODEL, 5)
            assert await numbers(feed_of(database), after=7) == [8, 9]
            with pytest.raises(ChangesTrimmed):
                await feed_of(database).changes_after(6, 10)
            await add_crops(database, 50)
            feeds = [feed_of(database, kept=3), feed_of(second, kept=3)]
            await asyncio.gather(*(trim_all(feed) for feed in feeds))
            assert await numbers(feeds[0], after=56) == [57, 58, 59]

    run(test())


def test_a_crop_that_came_and_went_is_told_of_after_a_trim_as_a_removal(database_url: str) -> None:
    async def test() -> None:
        async with opened(database_url) as database:
            crops = await add_crops(database, 4)
            await delete(database, crops[3])
            feed = feed_of(database, kept=2)
            await trim_all(feed)
            key = crops[3].key
            assert await feed.changes_after(3, 10) == [Removal(4, key), Removal(5, key)]

    run(test())


def test_a_replica_that_slept_through_a_trim_is_rebuilt_and_right(database_url: str, tmp_path: Any) -> None:
    async def test() -> None:
        async with opened(database_url) as database, opened(database_url) as second:
            crops = await add_crops(database, 5)
            sleeper = IndexKeeper(feed_of(second), snapshots_in(tmp_path), poll_seconds=60)
            await sleeper.catch_up()
            assert found(sleeper) == keys(crops)
            await delete(database, crops[0])
            crops = crops[1:] + await add_crops(database, 20)
            await trim_all(feed_of(database, kept=3))
            await sleeper.catch_up()
            assert found(sleeper) == keys(crops)
            await delete(database, crops[-1])
            await sleeper.catch_up()
            assert found(sleeper) == keys(crops[:-1])
            await sleeper.stop()
            await trim_all(feed_of(database, kept=0))
            next_process = IndexKeeper(feed_of(database), snapshots_in(tmp_path))
            await next_process.catch_up()
            assert found(next_process) == keys(crops[:-1])

    run(test())


# notifications


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(listening, "_log", structlog.wrap_logger(None, processors=[capture]))
    return capture


@asynccontextmanager
async def listens(feed: DatabaseChangeFeed) -> AsyncIterator[asyncio.Semaphore]:
    """A semaphore that counts hints."""
    hints = asyncio.Semaphore(0)

    async def listen() -> None:
        async for _ in feed.hints():
            hints.release()

    listening = asyncio.create_task(listen())
    yield hints
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


async def is_told(hints: asyncio.Semaphore, within: float) -> bool:
    with suppress(TimeoutError):
        return await asyncio.wait_for(hints.acquire(), within)
    return False


def end_listening(url: str) -> int:
    """End the connections that listen; how many there were."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'passerby, listening%'"
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute(query + " AND datname = current_database()").fetchall())


def test_a_commit_that_changed_the_log_is_told_once_whoever_made_it(postgresql: Callable[[], str]) -> None:
    async def test() -> None:
        url = postgresql()
        async with opened(url) as database, opened(url) as second, listens(feed_of(second)) as hints:
            assert await is_told(hints, within=5)  # it listens
            await add_crops(database, 20)
            assert await is_told(hints, within=5)
            assert not await is_told(hints, within=0.2)
            with psycopg.connect(url) as connection:
                connection.execute(INSERT, (MODEL, 1))
                assert not await is_told(hints, within=0.2)  # not before it is committed
                connection.commit()
                assert await is_told(hints, within=5)

    run(test())


def test_a_lost_connection_is_made_again_and_said_once(postgresql: Callable[[], str], logged: LogCapture) -> None:
    async def test() -> None:
        url = postgresql()
        async with opened(url) as database, listens(feed_of(database)) as hints:
            assert await is_told(hints, within=5)
            assert end_listening(url) == 1
            assert await is_told(hints, within=5)  # for what was missed meanwhile
            await add_crops(database, 1)
            assert await is_told(hints, within=5)

    run(test())
    assert [entry["event"] for entry in logged.entries] == [
        "the database notifies no more; trying again",
        "the database notifies again",
    ]


def test_a_database_that_cannot_be_reached_is_tried_again_and_said_once(
    postgresql: Callable[[], str], logged: LogCapture
) -> None:
    async def test() -> None:
        url = postgresql()
        name = make_url(url).database
        async with opened(url) as database, listens(feed_of(database)) as hints:
            assert await is_told(hints, within=5)
            with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                connection.execute(query, (name,))
                assert not await is_told(hints, within=1)
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]
            assert await is_told(hints, within=5)

    run(test())
    assert [entry["event"] for entry in logged.entries] == [
        "the database notifies no more; trying again",
        "the database notifies again",
    ]


def test_sqlite_gives_no_hints(tmp_path: Any) -> None:
    async def test() -> None:
        async with opened(f"sqlite:///{tmp_path / 'x.sqlite3'}") as database:
            assert [hint async for hint in feed_of(database).hints()] == []

    run(test())
