"""Two services on one database: each finds the other's crops, and neither serves deleted ones."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from app.database import Database, database_url_of
from app.gallery.change_log_reader import DatabaseChangeLogReader
from app.settings import Settings
from tests.app.running import found, jpeg, search, stored
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]
Pair = tuple[httpx.Client, httpx.Client]
NEVER = 600.0
"""Seconds between polls of the database: none happens during a test."""


@pytest.fixture
def start(run: Run, settings: Settings, tmp_path: Path) -> Callable[[float], Pair]:
    """Start two services with this poll interval (seconds)."""

    def start(poll_seconds: float) -> Pair:
        shared = {"images_url": (tmp_path / "images").as_uri(), "index_poll_seconds": poll_seconds}
        one, two = (run(settings.model_copy(update={"data_dir": tmp_path / name, **shared})) for name in ("a", "b"))
        return one, two

    return start


@pytest.fixture
def postgresql_url(settings: Settings) -> str:
    """The database, where it is PostgreSQL; a test that uses it is not for SQLite."""
    url = settings.database_url or ""
    if not url.startswith("postgresql"):
        pytest.skip("SQLite tells nobody of commits")
    return url


def hold_up_hints(url: str) -> None:
    """Disable PostgreSQL's notifications of changes."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.execute("DROP TRIGGER tell_changes ON changes")


def listening(connection: psycopg.Connection) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientRead' AND "
    return [pid for (pid,) in connection.execute(query + "application_name LIKE 'passerby, listening%'")]


@contextmanager
def no_listening(url: str) -> Iterator[None]:
    """Terminate every listening connection immediately."""
    stop = threading.Event()

    def end_all() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.01):
                for pid in listening(connection):
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    ending = threading.Thread(target=end_all)
    ending.start()
    yield
    stop.set()
    ending.join()


# latency


def test_postgresql_notifies_the_other_service_at_once(start: Callable[[float], Pair], postgresql_url: str) -> None:
    one, two = start(NEVER)
    for seed, (writer, reader) in enumerate([(one, two), (two, one)] * 3):
        (crop,) = stored(writer, seed)
        until(lambda crop=crop, reader=reader, seed=seed: crop["id"] in found(reader, seed), 1)  # type: ignore[misc]


def test_notifications_resume_after_the_listening_connection_was_lost(
    start: Callable[[float], Pair], postgresql_url: str
) -> None:
    one, two = start(NEVER)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        until(lambda: len(listening(connection)) == 2, 5)
        before = listening(connection)
        for pid in before:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda: len(set(listening(connection)) - set(before)) == 2, 5)
    (crop,) = stored(one, 1)
    until(lambda: found(two, 1) == [crop["id"]], 1)


def test_polling_works_without_notifications(start: Callable[[float], Pair], postgresql_url: str) -> None:
    one, two = start(0.1)
    hold_up_hints(postgresql_url)
    with no_listening(postgresql_url):
        time.sleep(0.3)
        (crop,) = stored(one, 1)
        until(lambda: found(two, 1) == [crop["id"]], 2)


# consistency


def test_session_consistency_finds_crops_of_other_services(start: Callable[[float], Pair], settings: Settings) -> None:
    one, two = start(NEVER)
    hold_up_hints(settings.database_url or "")
    (crop,) = stored(one, 1)
    assert found(two, 1) == []
    assert found(two, 1, consistency="eventual") == []
    assert found(two, 1, consistency="session") == [crop["id"]]
    assert found(two, 1) == [crop["id"]]


def test_a_crop_that_another_service_has_stored_is_found_after_it_was_posted_again(
    start: Callable[[float], Pair], settings: Settings
) -> None:
    one, two = start(NEVER)
    hold_up_hints(settings.database_url or "")
    assert stored(one, 1) == stored(two, 1)
    assert len(found(two, 1)) == 1


def test_consistency_is_one_of_two(start: Callable[[float], Pair]) -> None:
    one, _ = start(NEVER)
    assert search(one, jpeg(1), consistency="strong").status_code == 422
    assert search(one, jpeg(1), consistency="").status_code == 200


# deletions


def test_crops_deleted_by_another_service_are_replaced_by_further_matches(
    start: Callable[[float], Pair], settings: Settings
) -> None:
    one, two = start(NEVER)
    crops = stored(one, *range(20))
    assert len(found(two, 0, consistency="session", top_k=20)) == 20
    hold_up_hints(settings.database_url or "")
    best = found(two, 0, top_k=10)
    for crop_id in best[:8]:
        assert one.delete(f"/crops/{crop_id}").status_code == 204
        again = found(two, 0, top_k=10)
        assert crop_id not in again
        assert len(again) == 10
    left = {crop["id"] for crop in crops} - set(best[:8])
    assert set(found(two, 0, top_k=20)) == left


def test_a_search_by_crops_is_filled_up(start: Callable[[float], Pair], settings: Settings) -> None:
    one, two = start(NEVER)
    crops = stored(one, *range(6))
    found(two, 0, consistency="session")
    hold_up_hints(settings.database_url or "")
    asked = {"crop_ids": [crops[0]["id"]], "top_k": "3"}
    best = [match["crop"]["id"] for match in two.post("/search", data=asked).json()["matches"]]
    for crop_id in best[:2]:
        one.delete(f"/crops/{crop_id}")
    again = [match["crop"]["id"] for match in two.post("/search", data=asked).json()["matches"]]
    assert len(again) == 3
    assert not set(best[:2]) & set(again)


# trimming


async def test_a_service_that_missed_trimmed_changes_finds_everything(
    start: Callable[[float], Pair], settings: Settings
) -> None:

    async def trim() -> None:
        database = Database(database_url_of(settings))
        feed = DatabaseChangeLogReader(database, one.get("/models").json()[0]["model_id"], 2)
        while await feed.trim():
            pass
        await database.close()

    one, two = start(NEVER)
    stored(one, 1)
    found(two, 1, consistency="session")
    hold_up_hints(settings.database_url or "")
    crops = stored(one, *range(10))
    one.delete(f"/crops/{crops[1]['id']}")
    await trim()
    left = {crop["id"] for crop in crops} - {crops[1]["id"]}
    assert set(found(two, 1, consistency="session")) == left
    (late,) = stored(one, 11)
    assert set(found(two, 1, consistency="session")) == left | {late["id"]}


def test_a_service_trims_the_log_automatically(run: Run, settings: Settings) -> None:
    import asyncio

    async def changes() -> int:
        database = Database(database_url_of(settings))
        async with database.engine.connect() as connection:
            count = (await connection.exec_driver_sql("SELECT count(*) FROM changes")).scalar_one()
        await database.close()
        return int(count)

    with_log = run(settings.model_copy(update={"changes_kept": 5}))
    stored(with_log, *range(9))
    again = run(settings.model_copy(update={"changes_kept": 5, "data_dir": settings.data_dir / "again"}))
    until(lambda: asyncio.run(changes()) == 5, 10)
    assert len(found(again, 1)) == 9
