"""PostgreSQL's notifications of changes, also after a lost connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg

from app.gallery.change_log_reader import DatabaseChangeLogReader
from tests.app.change_log_factories import INSERT, MODEL, add_crops, feed_of, opened
from tests.app.faults import taking_no_connections
from tests.app.logged import Logged


@asynccontextmanager
async def listens(feed: DatabaseChangeLogReader) -> AsyncIterator[asyncio.Semaphore]:
    """A semaphore that counts hints."""
    notifications = asyncio.Semaphore(0)

    async def listen() -> None:
        async for _ in feed.notifications():
            notifications.release()

    listening = asyncio.create_task(listen())
    yield notifications
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


async def is_notified(notifications: asyncio.Semaphore, within: float) -> bool:
    with suppress(TimeoutError):
        return await asyncio.wait_for(notifications.acquire(), within)
    return False


def end_listening(url: str) -> int:
    """Terminate the listening connections; returns their number."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'passerby, listening%'"
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute(query + " AND datname = current_database()").fetchall())


async def test_a_commit_that_changed_the_log_notifies_once(postgresql: Callable[[], str]) -> None:
    url = postgresql()
    async with opened(url) as database, opened(url) as second, listens(feed_of(second)) as notifications:
        assert await is_notified(notifications, within=5)  # it listens
        await add_crops(database, 20)
        assert await is_notified(notifications, within=5)
        assert not await is_notified(notifications, within=0.2)
        with psycopg.connect(url) as connection:
            connection.execute(INSERT, (MODEL, 1))
            assert not await is_notified(notifications, within=0.2)  # not before it is committed
            connection.commit()
            assert await is_notified(notifications, within=5)


async def test_a_lost_connection_is_reconnected_and_logged_once(postgresql: Callable[[], str], logged: Logged) -> None:
    url = postgresql()
    async with opened(url) as database, listens(feed_of(database)) as notifications:
        assert await is_notified(notifications, within=5)
        assert end_listening(url) == 1
        assert await is_notified(notifications, within=5)  # for notifications that were missed until then
        await add_crops(database, 1)
        assert await is_notified(notifications, within=5)
    assert [entry["event"] for entry in logged] == [
        "the connection for notifications is lost; reconnecting",
        "the connection for notifications is back",
    ]


async def test_an_unreachable_database_is_retried_and_logged_once(
    postgresql: Callable[[], str], logged: Logged
) -> None:
    url = postgresql()
    async with opened(url) as database, listens(feed_of(database)) as notifications:
        assert await is_notified(notifications, within=5)
        with taking_no_connections(url):
            assert not await is_notified(notifications, within=1)
        assert await is_notified(notifications, within=5)
    assert [entry["event"] for entry in logged] == [
        "the connection for notifications is lost; reconnecting",
        "the connection for notifications is back",
    ]


async def test_sqlite_has_no_notifications(tmp_path: Any) -> None:
    async with opened(f"sqlite:///{tmp_path / 'x.sqlite3'}") as database:
        assert [hint async for hint in feed_of(database).notifications()] == []
