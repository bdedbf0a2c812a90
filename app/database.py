"""The database: engine, units of work for reading and for writing, and the migrations applied at start."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiosqlite
import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, MetaData, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.listening import notifications
from app.settings import Settings

MIGRATIONS = Path(__file__).parent.parent / "migrations"

_WRITES = "passerby_writes"
_WRITE_LOCK = 0x7061_7373_6572  # an arbitrary number; migration 0002 repeats it
_MIGRATION_LOCK = _WRITE_LOCK + 1
_INDEX_LOCK = _WRITE_LOCK + 2
_REINDEX_LOCK = _WRITE_LOCK + 3
_ERASE_LOCK = _WRITE_LOCK + 4
_SQLITE_BUSY_MS = 30_000
_SWITCH_RETRY_SECONDS = 0.01
_POSTGRESQL_WAIT_SECONDS = 30
_POSTGRESQL_POLL_SECONDS = 0.1

# Rows that they may still read would be kept. PostgreSQL shows the transactions of the same role.
_EARLIER_READERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
AND age(backend_xmin) > pg_snapshot_xmax(pg_current_snapshot())::text::bigint - :next
"""

_PATIENCE = {"connect_timeout": "10"}  # seconds; psycopg waits for 130 where a host does not answer at all
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}

_NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class DatabaseReplaced(OSError):
    """The file of an SQLite database was deleted or replaced while a service used it."""


DATABASE_DOWN = (OperationalError, InterfaceError, PoolTimeout, DatabaseReplaced)
"""Exceptions of a database that does not work now, whatever the statement is."""


class StillUsed(Exception):
    """Deleted rows cannot leave the files of the database yet."""


class DatabaseUrlError(ValueError):
    """PASSERBY_DATABASE_URL is no URL of a database; the message does not repeat it, as it may hold a password."""


def shown_url(url: URL) -> str:
    """A URL without its password."""
    return url.render_as_string(hide_password=True)


class Table(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(naming_convention=_NAMING)

    @classmethod
    def core(cls) -> sqlalchemy.Table:
        """For inserts that bypass SQLAlchemy's unit of work, which takes several times as long for each row."""
        return cls.metadata.tables[cls.__tablename__]


_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_of(session: AsyncSession, table: type[Table]) -> Any:
    """The insert of the session's dialect, which supports ON CONFLICT."""
    return _INSERTS[session.get_bind().dialect.name](table.core())


def database_url_of(settings: Settings) -> URL:
    """The URL of a service's database. Raises DatabaseUrlError."""
    if settings.database_url is not None:
        return _parsed(settings.database_url)
    return URL.create("sqlite", database=str(settings.database_file))


class Database:
    """One database, SQLite or PostgreSQL.

    Writing units of work are serialised, in this process and across processes. So the sequence numbers of the change
    log become visible in ascending order, and a reader that has read up to one number has missed none below it. Writers
    that do not use this class are serialised, too: by SQLite itself, and on PostgreSQL by a trigger of the change log
    that takes the same lock (migration 0002).
    """

    def __init__(self, url: str | URL) -> None:
        """url: `sqlite:///FILE` or `postgresql://...`. Raises DatabaseUrlError, and OSError for a file's folder."""
        parsed = _parsed(url)
        self._kind = parsed.get_backend_name()
        self._sqlite = self._kind == "sqlite"
        if not self._sqlite and "PGCONNECT_TIMEOUT" not in os.environ:
            parsed = parsed.set(query=_PATIENCE | dict(parsed.query))
        if self._sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = create_async_engine(parsed.set(drivername=_DRIVERS[self._kind]), pool_pre_ping=not self._sqlite)
        # The lowest level at which several statements see one snapshot; read-only transactions never fail at it.
        self._reading = (
            self.engine if self._sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._local_lock = asyncio.Lock()
        self._file = _SqliteFile(parsed.database) if self._sqlite and parsed.database else None
        if self._sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        if self._file is not None:
            event.listen(self.engine.sync_engine, "do_connect", self._file.check)
            event.listen(self.engine.sync_engine, "begin", self._file.check)

    @property
    def folder(self) -> Path | None:
        """The folder of an SQLite file."""
        return None if self._file is None else self._file.path.parent

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A unit of work that only reads, from one snapshot of the database."""
        async with AsyncSession(self._reading, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A unit of work that writes: committed at the end of the block, rolled back where the block raises."""
        async with self._local_lock, self._writing(_WRITE_LOCK) as session:
            yield session

    @asynccontextmanager
    async def write_without_lock(self) -> AsyncIterator[AsyncSession]:
        """A unit of work as `write` that changes no crop, such as a stored search.

        It waits for no other writer, except on SQLite, which has one at a time.
        """
        async with self._local_lock if self._sqlite else nullcontext(), self._writing(None) as session:
            yield session

    @asynccontextmanager
    async def index_lock(self) -> AsyncIterator[None]:
        """Hold the lock for changes of an index that several processes share.

        SQLite serves one process, which needs no lock.
        """
        if self._sqlite:
            yield
            return
        async with self.engine.connect() as connection:
            await self._lock_for_writing(connection, _INDEX_LOCK)
            yield

    def notifications(self, channel: str) -> AsyncIterator[None]:
        """An item at the start and after each notification on a channel by any process; none on SQLite."""
        if self._sqlite:
            return _nothing()
        _, parameters = self.engine.dialect.create_connect_args(self.engine.url)
        return notifications(parameters, channel)

    async def migrate(self) -> bool:
        """Apply the migrations; a lock serialises processes that start together. True where the database was empty."""
        async with self.engine.connect() as connection:
            await self._lock_for_writing(connection, _MIGRATION_LOCK)
            was_empty = not await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())
            await connection.run_sync(_upgrade)
            await connection.commit()
        if self._file is not None:
            self._file.watch()
        return was_empty

    async def erase(self) -> bool:
        """Rewrite the database's files, so that nothing of deleted rows is left in them.

        On SQLite writers wait in the meantime; on PostgreSQL all wait for each table as long as it is rewritten, and
        its write-ahead log is left as it is. Takes as much free space as the database. False where another process is
        doing it. Raises StillUsed where a transaction that began earlier may still read deleted rows, and what the
        driver raises.
        """
        if self._sqlite:
            async with self._local_lock, self.engine.connect() as connection:
                await _rewrite_sqlite(connection)
            return True
        async with self._try_lock(_ERASE_LOCK) as acquired, self.engine.connect() as connection:
            if acquired:
                await _rewrite_postgresql(await connection.execution_options(isolation_level="AUTOCOMMIT"))
            return acquired

    @asynccontextmanager
    async def try_reindex_lock(self) -> AsyncIterator[bool]:
        """Try to take the lock of the reindex worker: True for one process at a time. The lock ends with its process.

        Always True on SQLite, which has no such locks; there, work must tolerate being done twice.
        """
        if self._sqlite:
            yield True
            return
        async with self._try_lock(_REINDEX_LOCK) as acquired:
            yield acquired

    @asynccontextmanager
    async def _try_lock(self, lock: int) -> AsyncIterator[bool]:
        async with self.engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            acquired = await autocommit.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": lock})
            try:
                yield bool(acquired)
            finally:
                if acquired:
                    await connection.invalidate()  # ends the session and thereby releases the lock

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    @asynccontextmanager
    async def _writing(self, lock: int | None) -> AsyncIterator[AsyncSession]:
        async with self.engine.connect() as connection:
            await self._lock_for_writing(connection, lock)
            async with AsyncSession(connection, expire_on_commit=False) as session:
                yield session
                await session.commit()
            await connection.commit()

    async def _lock_for_writing(self, connection: AsyncConnection, lock: int | None) -> None:
        if self._sqlite:
            await connection.execution_options(**{_WRITES: True})
            await connection.begin()
        elif lock is not None:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


class _SqliteFile:
    """The file of an SQLite database. SQLite goes on with a deleted file, and makes an empty one in its place."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._identity: tuple[int, int] | None = None

    def watch(self) -> None:
        """From now on, only the file that is there now is the database."""
        self._identity = self._present()

    def check(self, *_: object) -> None:
        """Raises DatabaseReplaced if the file is gone, or another one."""
        if self._identity is not None and self._present() != self._identity:
            raise DatabaseReplaced(
                f"the database's file {self.path} was deleted or replaced while the service ran: put it back, or "
                "restart the service to use the file that is there"
            )

    def _present(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


async def _rewrite_sqlite(connection: AsyncConnection) -> None:
    """Rewrite the file, as pages keep copies of rows that have moved, and empty the write-ahead log."""
    driver = (await connection.get_raw_connection()).driver_connection
    if driver is None:
        raise StillUsed("the connection to the database was closed")
    try:
        await driver.execute("VACUUM")
        async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            busy, _, _ = await cursor.fetchone()
    except asyncio.CancelledError:
        await driver.interrupt()  # the file stays as it was
        raise
    if busy:
        raise StillUsed("the write-ahead log cannot be emptied: a transaction still reads from it")


async def _rewrite_postgresql(connection: AsyncConnection) -> None:
    """Rewrite all tables, which VACUUM alone does not do, and the statistics, which hold values of rows."""
    next_transaction = await connection.scalar(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))
    latest = time.monotonic() + _POSTGRESQL_WAIT_SECONDS
    while await connection.scalar(text(_EARLIER_READERS), {"next": next_transaction}):
        if time.monotonic() > latest:
            raise StillUsed("a transaction that began before the deletion may still read deleted rows")
        await asyncio.sleep(_POSTGRESQL_POLL_SECONDS)
    await connection.execute(text(f"SET lock_timeout = '{_POSTGRESQL_WAIT_SECONDS}s'"))
    try:
        for table in (*Table.metadata.tables, "pg_statistic"):
            options = "FULL" if table == "pg_statistic" else "FULL, ANALYZE"
            await connection.execute(text(f'VACUUM ({options}) "{table}"'))
    finally:
        await connection.execute(text("RESET lock_timeout"))


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseUrlError(
            "PASSERBY_DATABASE_URL is no URL of a database: write postgresql://USER:PASSWORD@HOST:PORT/NAME or "
            "sqlite:////PATH/TO/FILE, with %40 for @, %2F for / and %25 for % in a password"
        ) from None
    if parsed.get_backend_name() not in _DRIVERS:
        raise DatabaseUrlError(
            f"PASSERBY_DATABASE_URL is for {parsed.get_backend_name()}; use sqlite:///FILE or postgresql://..."
        )
    return parsed


async def _nothing() -> AsyncIterator[None]:
    return
    yield  # makes this function a generator


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions, not the driver
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MS}")
    connection.run_async(_write_ahead)
    cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged crop survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten, in most places at once
    cursor.close()


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """Switch the file to write-ahead logging, with retries: connections race for the switch.

    SQLite refuses all but one of them immediately, whatever the busy timeout, to avoid a deadlock.
    """
    latest = time.monotonic() + _SQLITE_BUSY_MS / 1000
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
            await asyncio.sleep(_SWITCH_RETRY_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
