"""Looks up and stores the crops of concurrent requests in shared statements and transactions (group commit)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import DATABASE_DOWN, Database
from app.gallery.attributes import lines_of
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.images import ImageStore
from app.gallery.labels import Label
from app.gallery.metadata import CropMetadata
from app.gallery.repository import GalleryRepository, Identity
from app.gallery.tables import Crop
from app.kit.async_batcher import AsyncBatcher
from app.kit.ids import new_id
from app.kit.times import now_microseconds
from app.models.active import ModelChanged, RunningModel
from app.models.repository import ModelRepository
from model.architecture import PART_DIM, PARTS
from model.decoding import PictureFacts

CROPS_A_TRANSACTION = 128
"""Of all requests in it. Other writers wait until the transaction ends."""

CROPS_A_LOOKUP = 512


@dataclass(frozen=True)
class EmbeddedNewCrop:
    """A crop to store, with its file as it was posted. parts: `(8, 256)` float32."""

    metadata: CropMetadata
    content: bytes
    facts: PictureFacts
    parts: NDArray[np.float32]


@dataclass(frozen=True)
class StoredCrop:
    """The outcome of a posted crop. parts: `(8, 256)` float32.

    differs: names of posted labels that differ from those of the stored crop, or did before it was updated.
    """

    status: Literal["created", "existing", "updated"]
    crop: Crop
    parts: NDArray[np.float32]
    differs: tuple[Label, ...] = ()


NewCrops = Mapping[Identity, EmbeddedNewCrop]
StoredCrops = dict[Identity, StoredCrop]


class CropStore:
    """The gallery's crops with one model's embeddings, by identity."""

    def __init__(self, database: Database, images: ImageStore, model: RunningModel) -> None:
        self._database = database
        self._images = images
        self._index = model.index
        self._model_id = model.id
        self._lookups = AsyncBatcher[Collection[Identity], StoredCrops](self._look_up, CROPS_A_LOOKUP, DATABASE_DOWN)
        self._writes = AsyncBatcher[NewCrops, StoredCrops](
            self._write, CROPS_A_TRANSACTION, (*DATABASE_DOWN, ModelChanged)
        )

    async def find(self, identities: Collection[Identity]) -> StoredCrops:
        """Stored crops with an embedding of the model, by identity; when this returns searches find them."""
        known = await self._lookups.run(identities)
        if known:  # another request or service may have committed them without updating this index yet
            await self._index.catch_up()
        return known

    async def mend(self, contents: Mapping[Identity, bytes]) -> None:
        """Write the pictures of stored crops again where their files are gone or damaged.

        Crops that were deleted since are left out: no file is removed during a transaction that writes.
        """
        unsound = set(await self._images.unsound({sha256: content for (_, _, sha256), content in contents.items()}))
        if not unsound:
            return
        async with self._database.write() as session:
            wanted = [identity for identity in contents if identity[2] in unsound]
            rows = await GalleryRepository(session).crops_by_identity(wanted)
            await self._images.put({identity[2]: contents[identity] for identity in rows})

    async def store(self, crops: NewCrops) -> StoredCrops:
        """Store crops: image files, then everything else, then the index.

        When this returns they are durable and can be found. Raises ModelChanged where another model became active
        during the call; then nothing is stored.
        """
        if not crops:
            return {}
        # slow: before the lock
        await self._images.put({sha256: crop.content for (_, _, sha256), crop in crops.items()})
        stored = await self._writes.run(crops)
        await self._index.catch_up()
        return stored

    async def _look_up(self, requests: Sequence[Collection[Identity]]) -> list[StoredCrops]:
        wanted = {identity for request in requests for identity in request}
        async with self._database.read() as session:
            crops = await GalleryRepository(session).crops_by_identity(wanted)
            keys = [crop.key for crop in crops.values()]
            vectors = await EmbeddingRepository(session).embeddings(keys, self._model_id)
        found = {
            identity: StoredCrop("existing", crop, unpack_parts(vectors[crop.key]))
            for identity, crop in crops.items()
            if crop.key in vectors
        }
        return [{identity: found[identity] for identity in request if identity in found} for request in requests]

    async def _write(self, requests: Sequence[NewCrops]) -> list[StoredCrops]:
        """The outcomes for several requests; a crop that is in several of them is `created` for the first."""
        crops: dict[Identity, EmbeddedNewCrop] = {}
        for request in requests:
            crops |= {identity: crop for identity, crop in request.items() if identity not in crops}
        async with self._database.write() as session:
            if (await ModelRepository(session).roles()).embedding_id != self._model_id:
                raise ModelChanged(f"{self._model_id} no longer embeds new crops")
            rows, created = await self._insert(session, crops)
        stored = []
        for request in requests:
            stored.append(
                {
                    identity: StoredCrop("created" if identity in created else "existing", rows[identity], crop.parts)
                    for identity, crop in request.items()
                }
            )
            created -= request.keys()
        return stored

    async def _insert(self, session: AsyncSession, crops: NewCrops) -> tuple[dict[Identity, Crop], set[Identity]]:
        """The rows of all crops, and the identities of the new ones."""
        repository, embeddings = GalleryRepository(session), EmbeddingRepository(session)
        await repository.add_cameras({camera_id for camera_id, _, _ in crops}, now_microseconds())
        await self._insert_images(repository, {sha256: crop for (_, _, sha256), crop in crops.items()})
        rows = await repository.crops_by_identity(crops.keys())
        known = await embeddings.embeddings([crop.key for crop in rows.values()], self._model_id)
        new = _new_rows({identity: crop for identity, crop in crops.items() if identity not in rows})
        await repository.add_crops(list(dict.fromkeys(new.values())))
        rows |= new
        vectors = {rows[identity].key: crop.parts.reshape(-1) for identity, crop in crops.items()}
        await embeddings.add_embeddings(
            {key: vector for key, vector in vectors.items() if key not in known}, self._model_id
        )
        return rows, set(new)

    async def _insert_images(self, repository: GalleryRepository, crops: Mapping[str, EmbeddedNewCrop]) -> None:
        """The rows of images, by hash, of which `store` has written the files.

        A concurrent deletion may have removed a file that `store` had found. No file is removed during this
        transaction, as writers are serialised, so missing files are written again.
        """
        await repository.add_images(
            {sha256: asdict(crop.facts) | {"bytes": len(crop.content)} for sha256, crop in crops.items()}
        )
        missing = await self._images.missing(crops)
        await self._images.put({sha256: crops[sha256].content for sha256 in missing})


def unpack_parts(vector: NDArray[np.float16]) -> NDArray[np.float32]:
    """A stored embedding `(2048,)` as parts `(8, 256)`."""
    return vector.astype(np.float32).reshape(len(PARTS), PART_DIM)


def _new_rows(crops: NewCrops) -> dict[Identity, Crop]:
    """A row for each crop; a guessed time is that of the first crop with the same camera and image, if there is one."""
    rows: dict[Identity, Crop] = {}
    of_image: dict[tuple[str, str], Crop] = {}
    for identity in sorted(crops, key=lambda identity: identity[1] is None):
        camera_id, captured_at, sha256 = identity
        known = of_image.get((camera_id, sha256)) if captured_at is None else None
        rows[identity] = known or _row(crops[identity].metadata, sha256)
        of_image.setdefault((camera_id, sha256), rows[identity])
    return rows


def _row(metadata: CropMetadata, sha256: str) -> Crop:
    return Crop(
        id=new_id(),
        camera_id=metadata.camera_id,
        **asdict(metadata.capture_time),
        track_id=metadata.track_id,
        person_id=metadata.person_id,
        attributes=dict(metadata.attributes or {}),
        attribute_lines=lines_of(metadata.attributes or {}),
        image_sha256=sha256,
        created_at=now_microseconds(),
    )
