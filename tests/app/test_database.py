"""Units of work and migrations, on both kinds of database."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

import app.models.tables  # all tables must be known
import app.search.tables
from app.database import MIGRATIONS, Database, Table
from app.gallery.attributes import pairs_of
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Camera, Crop, Image
from app.index.port import Filter
from tests.app.change_log_factories import opened


async def camera_ids(database: Database) -> list[str]:
    async with database.read() as session:
        return [camera.id for camera in await GalleryRepository(session).cameras()]


def add_camera(session: object, camera_id: str) -> None:
    GalleryRepository(session).add(Camera(id=camera_id, name="x", created_at=0))  # type: ignore[arg-type]


async def test_the_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), Table.metadata)

    async with opened(database_url) as database, database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []

    assert app.search.tables
    assert app.models.tables


async def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    await asyncio.gather(*(database.migrate() for database in databases))
    assert await camera_ids(databases[0]) == []
    for database in databases:
        await database.close()


async def test_processes_may_open_a_new_sqlite_file_at_the_same_moment(tmp_path: Path) -> None:
    """A regression test: the switch to write-ahead logging failed immediately in a few of a hundred runs."""

    async def open_together(path: Path) -> list[str]:
        databases = [Database(f"sqlite:///{path}") for _ in range(4)]
        modes = await asyncio.gather(*(_journal_mode(database) for database in databases))
        for database in databases:
            await database.close()
        return modes

    for number in range(100):
        assert await open_together(tmp_path / f"{number}.sqlite3") == ["wal"] * 4


async def _journal_mode(database: Database) -> str:
    async with database.engine.connect() as connection:
        return str(await connection.scalar(text("PRAGMA journal_mode")))


async def test_crops_of_an_older_gallery_can_be_filtered_by_attributes(database_url: str) -> None:
    values: list[dict[str, object]] = [
        {},
        {"colour": "red"},
        {"lane": 1.0, "colour": "red"},
        {"note": "\x00"},
    ] * 400

    def crop(number: int, attributes: dict[str, object]) -> Crop:
        return Crop(
            id=f"{number}", camera_id="gate", captured_at=number, utc_offset=0, attributes=attributes,
            time_guessed=False, image_sha256="0", created_at=0,
        )  # fmt: skip

    def back_to_the_first_tables(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")

    async def count(database: Database, **attributes: object) -> int:
        which = Filter(attributes=pairs_of(attributes))
        async with database.read() as session:
            return len(await GalleryRepository(session).page(which, None, 10_000))

    async with opened(database_url) as database:
        async with database.write() as session:
            add_camera(session, "gate")
            session.add(Image(sha256="0", media_type="image/png", width=1, height=1, bytes=1))
            await session.flush()
            await GalleryRepository(session).add_crops(
                [crop(number, attributes) for number, attributes in enumerate(values)]
            )
        assert await count(database, colour="red") == 0
        async with database.engine.connect() as connection:
            await connection.run_sync(back_to_the_first_tables)
            await connection.commit()
        await database.migrate()
        assert await count(database, colour="red") == 800
        assert await count(database, colour="red", lane=1) == await count(database, note="\x00") == 400


async def test_a_unit_of_work_that_raises_leaves_nothing(database_url: str) -> None:
    async with opened(database_url) as database:

        async def fail() -> None:
            async with database.write() as session:
                add_camera(session, "lost")
                await session.flush()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        async with database.write() as session:
            add_camera(session, "kept")
        assert await camera_ids(database) == ["kept"]


async def test_writers_of_several_processes_are_serialised(database_url: str) -> None:
    """Two Database objects stand for two processes: the second must not begin before the first has committed."""

    async with opened(database_url) as first:
        second = Database(database_url)
        order: list[str] = []
        begun = asyncio.Event()

        async def slow() -> None:
            async with first.write() as session:
                order.append("first begins")
                begun.set()
                add_camera(session, "a")
                await session.flush()
                await asyncio.sleep(0.3)
                order.append("first ends")

        async def late() -> None:
            await begun.wait()
            async with second.write() as session:
                order.append("second begins")
                add_camera(session, "b")

        await asyncio.gather(slow(), late())
        assert order == ["first begins", "first ends", "second begins"]
        await second.close()


async def test_on_postgresql_a_unit_that_changes_no_crop_waits_for_no_writer(postgresql: Callable[[], str]) -> None:
    async with opened(postgresql()) as database, database.write() as session:
        add_camera(session, "a")
        await session.flush()
        async with asyncio.timeout(10), database.write_without_lock() as apart:
            add_camera(apart, "b")
        assert await camera_ids(database) == ["b"]


async def test_on_sqlite_a_unit_that_changes_no_crop_waits_its_turn(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'test.sqlite3'}") as database:

        async def add(number: int) -> None:
            async with database.write_without_lock() if number % 2 else database.write() as session:
                add_camera(session, f"{number:02}")
                await session.flush()

        await asyncio.gather(*(add(number) for number in range(40)))
        assert await camera_ids(database) == [f"{number:02}" for number in range(40)]


async def test_readers_do_not_wait_for_writers(database_url: str) -> None:
    async with opened(database_url) as database:
        async with database.write() as session:
            add_camera(session, "a")
            await session.flush()
            assert await asyncio.wait_for(camera_ids(database), 5) == []
        assert await camera_ids(database) == ["a"]


async def test_the_index_lock_excludes_other_processes_but_not_writers(
    postgresql: Callable[[], str],
) -> None:
    url = postgresql()

    async with opened(url) as first:
        second = Database(url)
        order: list[str] = []
        begun = asyncio.Event()

        async def slow() -> None:
            async with first.index_lock():
                order.append("first begins")
                begun.set()
                await asyncio.sleep(0.3)
                async with second.write() as session:
                    add_camera(session, "a")
                order.append("first ends")

        async def late() -> None:
            await begun.wait()
            async with second.index_lock():
                order.append("second begins")

        await asyncio.gather(slow(), late())
        assert order == ["first begins", "first ends", "second begins"]
        await second.close()


async def test_the_index_lock_is_released_after_an_error(postgresql: Callable[[], str]) -> None:
    async def fail(database: Database) -> None:
        async with database.index_lock():
            raise ConnectionError

    async with opened(postgresql()) as database:
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await fail(database)


def test_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"PASSERBY_DATABASE_URL is for mysql"):
        Database("mysql://localhost/x")
