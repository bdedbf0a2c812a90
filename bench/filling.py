"""Bulk insertion of crops without pictures into a service's database, as if they had been posted."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.database import Database, database_url_of
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Crop
from app.kit.ids import new_id
from app.settings import Settings

_BATCH = 10_000
_SHA256 = "0" * 64
_IMAGE = {"media_type": "image/jpeg", "width": 64, "height": 128, "bytes": 0}

CAMERA = "bench"


async def fill(data_dir: Path, model_id: str, embeddings: NDArray[np.float16], first: int = 0) -> None:
    """Fill the existing database in a folder; see `fill_database`."""
    database = Database(database_url_of(Settings(data_dir=data_dir)))
    await fill_database(database, model_id, embeddings, first)
    await database.close()


async def fill_database(database: Database, model_id: str, embeddings: NDArray[np.float16], first: int = 0) -> None:
    """Insert a crop for each of the embeddings `(N, 2048)`.

    first: the time of the first crop; each next one has the next microsecond.
    """
    for start in range(0, len(embeddings), _BATCH):
        async with database.write() as session:
            repository = GalleryRepository(session)
            await repository.add_cameras({CAMERA}, created_at=0)
            await repository.add_images({_SHA256: _IMAGE})
            batch = embeddings[start : start + _BATCH]
            crops = [
                Crop(
                    id=new_id(), camera_id=CAMERA, captured_at=first + number, utc_offset=0, attributes={},
                    time_guessed=False, image_sha256=_SHA256, created_at=0,
                )
                for number in range(start, start + len(batch))
            ]  # fmt: skip
            await repository.add_crops(crops)
            await EmbeddingRepository(session).add_embeddings(
                {crop.key: vector for crop, vector in zip(crops, batch, strict=True)}, model_id
            )
