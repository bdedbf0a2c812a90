"""`python -m bench.erasure`: how long the rewrite after deletions takes, and how long reads and writes wait for it."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import select, text

from app.database import Database, StillUsed
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Crop, Embedding
from bench.filling import fill_database
from bench.postgresql import postgresql
from bench.service import exit_on_sigterm
from model.architecture import EMBEDDING_DIM

_MODEL = "bench"
_BATCH = 20_000
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    """One rewrite: seconds, of it and of the longest wait of a read and of a write; gigabytes of the database."""

    seconds: float
    longest_read: float
    longest_write: float
    gigabytes: float


async def measure(url: str, crops: int, seed: int) -> Measured:
    """Fill a new database with random embeddings, delete one crop, and rewrite the database."""
    database = Database(url)
    await database.migrate()
    rng = np.random.default_rng(seed)
    for first in range(0, crops, _BATCH):
        embeddings = rng.standard_normal((min(_BATCH, crops - first), EMBEDDING_DIM), np.float32)
        await fill_database(database, _MODEL, embeddings.astype(np.float16), first)
    async with database.write() as session:
        await GalleryRepository(session).delete_crops([1], 0)
    waits: dict[str, list[float]] = {"read": [], "write": []}
    others = [asyncio.create_task(_repeat(call, waits[name])) for name, call in _calls(database).items()]
    await asyncio.sleep(1)
    seconds = await _rewrite(database)
    await asyncio.sleep(1)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    gigabytes = await _bytes(database) / 1e9
    await database.close()
    return Measured(seconds, max(waits["read"]), max(waits["write"]), gigabytes)


async def _rewrite(database: Database) -> float:
    """Seconds of the first rewrite that can be done: after many inserts, autovacuum reads earlier rows for minutes."""
    while True:
        began = time.monotonic()
        with suppress(StillUsed):
            if not await database.erase():
                raise RuntimeError("another process rewrites the database")
            return time.monotonic() - began


def _calls(database: Database) -> dict[str, Callable[[], Awaitable[None]]]:
    async def read() -> None:
        async with database.read() as session:
            await session.scalar(select(Embedding.vector).where(Embedding.model_id == _MODEL, Embedding.crop_key == 2))
            await session.scalar(select(Crop.id).where(Crop.key == 2))

    async def write() -> None:
        async with database.write() as session:
            await GalleryRepository(session).add_cameras({"other"}, 0)
            await GalleryRepository(session).delete_camera("other")

    return {"read": read, "write": write}


async def _repeat(call: Callable[[], Awaitable[None]], waits: list[float]) -> None:
    while True:
        began = time.monotonic()
        try:
            await call()
        finally:
            waits.append(time.monotonic() - began)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _bytes(database: Database) -> int:
    sqlite = database.engine.dialect.name == "sqlite"
    size = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if sqlite
        else "SELECT pg_database_size(current_database())"
    )
    async with database.read() as session:
        return int((await session.scalars(text(size))).one())


def main() -> None:
    """Run the benchmark on both databases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    exit_on_sigterm()
    table = Table("database", "size", "rewrite", "longest read", "longest write")
    with tempfile.TemporaryDirectory(prefix="passerby-") as name, ExitStack() as servers:
        folder = Path(name)
        urls = {"SQLite": f"sqlite:///{folder / 'passerby.sqlite3'}"}
        urls["PostgreSQL"] = servers.enter_context(postgresql(folder))
        for database, url in urls.items():
            found = asyncio.run(measure(url, arguments.crops, arguments.seed))
            table.add_row(
                database,
                f"{found.gigabytes:.2f} GB",
                f"{found.seconds:.1f} s",
                f"{found.longest_read:.2f} s",
                f"{found.longest_write:.1f} s",
            )
    Console().print(f"{arguments.crops:,} crops, one deleted; seed {arguments.seed}")
    Console().print(table)


if __name__ == "__main__":
    main()
