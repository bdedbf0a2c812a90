"""Trimming of the change log; readers of trimmed changes get an error."""

import asyncio
from typing import Any

import pytest

from app.gallery.embedding_repository import EmbeddingRepository
from app.index.port import Removal
from app.index.sync import ChangesTrimmed, IndexSync
from tests.app.change_log_factories import (
    MODEL,
    OTHER,
    add_crops,
    delete,
    feed_of,
    found,
    keys,
    numbers,
    opened,
    snapshots_in,
    trim_all,
)


async def test_trimming_keeps_the_newest_changes_of_each_model(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gallery.change_log_reader.TRIMMED_PER_TRANSACTION", 2)

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


async def test_trimming_counts_changes_not_numbers(database_url: str) -> None:
    """The sequence numbers of one model's changes have gaps, as all models share the sequence."""

    async with opened(database_url) as database:
        await add_crops(database, 2)
        await add_crops(database, 100, OTHER)
        await add_crops(database, 1)
        assert not await feed_of(database, kept=100).trim()
        assert await numbers(feed_of(database)) == [1, 2, 103]


async def test_only_readers_of_trimmed_changes_get_an_error(database_url: str) -> None:
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


async def test_a_log_that_trimming_emptied_keeps_its_last_sequence(database_url: str) -> None:
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


async def test_several_processes_may_trim_at_once(database_url: str) -> None:
    """The process that decided first and deletes last does not lower the trimmed sequence."""

    async with opened(database_url) as database, opened(database_url) as second:
        await add_crops(database, 9)
        async with database.write() as session:
            await EmbeddingRepository(session).trim_changes(MODEL, 7)
        async with second.write() as session:
            await EmbeddingRepository(session).trim_changes(MODEL, 5)
        assert await numbers(feed_of(database), after=7) == [8, 9]
        with pytest.raises(ChangesTrimmed):
            await feed_of(database).changes_after(6, 10)
        await add_crops(database, 50)
        feeds = [feed_of(database, kept=3), feed_of(second, kept=3)]
        await asyncio.gather(*(trim_all(feed) for feed in feeds))
        assert await numbers(feeds[0], after=56) == [57, 58, 59]


async def test_an_addition_of_a_deleted_crop_is_reported_as_a_removal_after_a_trim(database_url: str) -> None:
    async with opened(database_url) as database:
        crops = await add_crops(database, 4)
        await delete(database, crops[3])
        feed = feed_of(database, kept=2)
        await trim_all(feed)
        key = crops[3].key
        assert await feed.changes_after(3, 10) == [Removal(4, key), Removal(5, key)]


async def test_a_replica_that_missed_trimmed_changes_is_rebuilt_correctly(database_url: str, tmp_path: Any) -> None:
    async with opened(database_url) as database, opened(database_url) as second:
        crops = await add_crops(database, 5)
        sleeper = IndexSync(feed_of(second), snapshots_in(tmp_path), poll_seconds=60)
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
        next_process = IndexSync(feed_of(database), snapshots_in(tmp_path))
        await next_process.catch_up()
        assert found(next_process) == keys(crops[:-1])


# notifications
