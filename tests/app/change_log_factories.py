"""Small factories for the tests of the change log."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from app.database import Database
from app.gallery.change_log_reader import DatabaseChangeLogReader
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Crop
from app.index.faiss_index import FaissIndex
from app.index.local_storage import LocalIndexStorage
from app.index.port import Filter
from app.index.snapshots import SnapshotStore
from app.index.sync import IndexSync
from app.kit.ids import new_id
from model.architecture import EMBEDDING_DIM

MODEL, OTHER = "tiny-0123", "other-4567"
INSERT = "INSERT INTO changes (model_id, crop_key, what) VALUES (%s, %s, -1)"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(url)
    await database.migrate()
    yield database
    await database.close()


def feed_of(database: Database, kept: int = 1_000_000, model_id: str = MODEL) -> DatabaseChangeLogReader:
    return DatabaseChangeLogReader(database, model_id, kept)


async def add_crops(database: Database, count: int, model_id: str = MODEL) -> list[Crop]:
    """Store crops with embeddings; each adds a change to the log."""
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
                time_guessed=False,
                attributes={},
                image_sha256=sha,
                created_at=0,
            )
            for sha in shas
        ]
        await repository.add_crops(crops)
        vectors = {crop.key: np.eye(1, EMBEDDING_DIM, crop.key, dtype=np.float32)[0] for crop in crops}
        await EmbeddingRepository(session).add_embeddings(vectors, model_id)
    return crops


async def delete(database: Database, crop: Crop) -> None:
    async with database.write() as session:
        await GalleryRepository(session).delete_crops([crop.key], 0)


async def trim_all(feed: DatabaseChangeLogReader) -> None:
    while await feed.trim():
        pass


async def numbers(feed: DatabaseChangeLogReader, after: int = 0) -> list[int]:
    return [change.sequence for change in await feed.changes_after(after, 1000)]


def snapshots_in(folder: Path) -> LocalIndexStorage:
    return LocalIndexStorage(MODEL, SnapshotStore(folder, FaissIndex.restore), partial(FaissIndex, MODEL))


def found(sync: IndexSync) -> set[int]:
    (result,) = sync.index.search(np.ones((1, EMBEDDING_DIM), np.float32), Filter(), 1000)
    return set(result.keys.tolist())


def keys(crops: Collection[Crop]) -> set[int]:
    return {crop.key for crop in crops}


# the order of changes
