"""The change log keeps its order for all writers."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from app.gallery.embedding_repository import EmbeddingRepository
from tests.app.change_log_factories import INSERT, MODEL, add_crops, delete, feed_of, numbers, opened


async def follow_two_raw_transactions(
    url: str, second_insert: str, drawn_before: str | None = None
) -> tuple[bool, list[int]]:
    """Two foreign transactions, of which the second would commit first.

    Returns whether the second waits for the first, and the keys of the changes that a polling reader sees.
    """
    seen: list[int] = []
    last = 0

    async def poll() -> None:
        nonlocal last
        async with opened(url) as database:
            for change in await feed_of(database).changes_after(last, 10):
                seen.append(change.key)
                last = change.sequence

    def commit_second() -> None:
        second.execute(second_insert, (MODEL, 2))
        second.commit()

    await poll()
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        if drawn_before:
            second.execute(drawn_before)  # type: ignore[arg-type]
        first.execute(INSERT, (MODEL, 1))
        committing = threading.Thread(target=commit_second)
        committing.start()
        committing.join(0.5)
        waits = committing.is_alive()
        await poll()
        first.commit()
        committing.join()
        await poll()
    return waits, seen


async def test_foreign_transactions_are_serialised_so_that_no_change_is_skipped(
    postgresql: Callable[[], str],
) -> None:
    assert await follow_two_raw_transactions(postgresql(), INSERT) == (True, [1, 2])


async def test_without_the_trigger_a_change_would_be_skipped(postgresql: Callable[[], str]) -> None:
    """Proves that the test above can fail."""
    url = postgresql()
    async with opened(url):
        pass
    with psycopg.connect(url) as connection:
        connection.execute("DROP TRIGGER draw_change_sequence ON changes")
        connection.execute("ALTER TABLE changes ALTER COLUMN sequence SET DEFAULT nextval('changes_sequence_seq')")
    waits, seen = await follow_two_raw_transactions(url, INSERT)
    assert not waits
    assert seen == [2]


@pytest.mark.parametrize("number", ["currval('changes_sequence_seq')", "1"])
async def test_a_sequence_number_in_the_insert_is_overwritten(postgresql: Callable[[], str], number: str) -> None:
    url = postgresql()
    insert = f"INSERT INTO changes (sequence, model_id, crop_key, what) VALUES ({number}, %s, %s, -1)"
    drawn_before = "SELECT nextval('changes_sequence_seq')"
    assert await follow_two_raw_transactions(url, insert, drawn_before) == (True, [1, 2])


async def test_copy_draws_numbers_in_order(postgresql: Callable[[], str]) -> None:
    url = postgresql()
    async with opened(url) as database:
        await add_crops(database, 2)
        copying = "COPY changes (model_id, crop_key, what) FROM STDIN"
        with psycopg.connect(url) as connection, connection.cursor().copy(copying) as copy:
            for key in (7, 8, 9):
                copy.write_row((MODEL, key, -1))
        assert [change.key for change in await feed_of(database).changes_after(0, 10)] == [1, 2, 7, 8, 9]


async def test_a_foreign_transaction_waits_for_a_unit_of_work_that_has_not_logged_yet(
    postgresql: Callable[[], str],
) -> None:
    url = postgresql()
    async with opened(url) as database, database.write():
        with psycopg.connect(url) as connection:
            connection.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(INSERT, (MODEL, 1))


async def test_a_deadlock_with_a_foreign_transaction_ends_with_an_error(postgresql: Callable[[], str]) -> None:
    """A transaction that changes rows before the log can deadlock with a unit of work that holds the lock."""

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


async def test_a_unit_of_work_that_reads_sees_one_state(database_url: str) -> None:
    async with opened(database_url) as database:
        async with database.read() as session:
            repository = EmbeddingRepository(session)
            assert await repository.last_sequence(MODEL) == 0
            await add_crops(database, 3)
            assert await repository.changes(0, MODEL, 10) == []
        assert await numbers(feed_of(database)) == [1, 2, 3]


# trimming
