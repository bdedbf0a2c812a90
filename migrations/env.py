"""Runs the migrations, on the connection of app/database.py or, from the command line, on the configured database."""

import asyncio

from alembic import context
from sqlalchemy import Connection

import app.gallery.tables  # Table.metadata is complete only with all tables
import app.models.tables
import app.search.tables  # noqa: F401
from app.database import Database, Table, database_url_of
from app.settings import Settings


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Table.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def _run_alone() -> None:
    database = Database(database_url_of(Settings()))
    async with database.engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await database.close()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    asyncio.run(_run_alone())
