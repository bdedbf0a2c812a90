"""The gallery's rules: how crops and cameras come, are read and go."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from app.database import Database
from app.embedding.decoding import PictureError
from app.embedding.engine import EngineError
from app.embedding.frames import Box
from app.embedding.queue import Priority
from app.embedding.service import EmbeddedCrop, EmbeddedCut
from app.errors import NotFound
from app.gallery.answering import Answering, ModelChanged, RunningModel
from app.gallery.crop_store import CropStore, EmbeddedNewCrop, StoredCrop
from app.gallery.images import ImageStore
from app.gallery.metadata import CropMetadata
from app.gallery.pictures import Picture
from app.gallery.repository import GalleryRepository, Identity
from app.gallery.tables import Camera, Crop, Image
from app.index.port import Filter
from app.kit.hashing import sha256_of_all
from app.kit.leaving import Departure, unless_left
from app.kit.times import now_microseconds


@dataclass(frozen=True)
class NewCrop:
    """A crop that a camera pipeline gives as a file."""

    content: bytes
    metadata: CropMetadata


@dataclass(frozen=True)
class NewBox:
    """A crop that a camera pipeline gives as a box of a frame."""

    box: Box
    metadata: CropMetadata


Failure = PictureError | EngineError
"""Why there is no crop."""


@dataclass(frozen=True)
class Stored:
    """What became of crops, in order, and the one model that embedded all of them."""

    model_id: str
    outcomes: Sequence[StoredCrop | Failure]


class GalleryService:
    """Everything that can be done with the gallery, but for searching it."""

    def __init__(self, database: Database, images: ImageStore, answering: Answering) -> None:
        self._database = database
        self._images = images
        self._answering = answering
        self._crops = CropStore(database, images, answering.now)
        self._crops_of = answering.now

    # crops

    async def store(self, crops: Sequence[NewCrop], departure: Departure) -> Stored:
        """Embed crops and store them; when this returns they are durable and can be found.

        One outcome for each, in order: a picture that cannot be used fails alone. Raises QueueFull, QueueClosed, or
        ClientLeft where the client leaves before all are embedded, and then nothing is stored; NotReady.
        """
        return await self._by_the_model_that_answers(partial(self._store, crops, departure))

    async def store_frame(self, frame: bytes, crops: Sequence[NewBox], departure: Departure) -> Stored:
        """Cut crops out of a frame, then embed and store them as `store` does, each with a file of its own.

        Raises PictureError where the frame cannot be used.
        """
        return await self._by_the_model_that_answers(partial(self._store_frame, frame, crops, departure))

    async def _by_the_model_that_answers(
        self, work: Callable[[RunningModel, CropStore], Awaitable[list[StoredCrop | Failure]]]
    ) -> Stored:
        """Do some work, again where the model was changed meanwhile: what one model embedded, another never answers."""
        if self._answering.trouble is not None:  # before anything is embedded in vain
            await self._answering.refresh()
        while True:
            with self._answering.use() as model:
                if self._crops_of is not model:
                    self._crops, self._crops_of = CropStore(self._database, self._images, model), model
                try:
                    return Stored(model.id, await work(model, self._crops))
                except ModelChanged:
                    pass
            await self._answering.refresh()

    async def _store(
        self, crops: Sequence[NewCrop], departure: Departure, model: RunningModel, store: CropStore
    ) -> list[StoredCrop | Failure]:
        hashes = await sha256_of_all([crop.content for crop in crops])
        identities = [crop.metadata.identity(sha256) for crop, sha256 in zip(crops, hashes, strict=True)]
        known = await store.find(set(identities))
        fresh = {i: crop for i, crop in zip(identities, crops, strict=True) if i not in known}
        embedding = model.embedding.embed([crop.content for crop in fresh.values()], Priority.BULK)
        outcomes = await unless_left(departure, embedding)
        failed: dict[Identity, Failure] = {}
        embedded: dict[Identity, EmbeddedNewCrop] = {}
        for (identity, crop), outcome in zip(fresh.items(), outcomes, strict=True):
            if isinstance(outcome, EmbeddedCrop):
                picture = Picture(crop.content, identity[2], outcome.facts)
                embedded[identity] = EmbeddedNewCrop(crop.metadata, picture, outcome.parts)
            else:
                failed[identity] = outcome
        stored = known | await store.store(embedded)
        return [
            failed.get(i) or _told(stored[i], again) for i, again in zip(identities, _again(identities), strict=True)
        ]

    async def _store_frame(
        self,
        frame: bytes,
        crops: Sequence[NewBox],
        departure: Departure,
        model: RunningModel,
        store: CropStore,
    ) -> list[StoredCrop | Failure]:
        embedding = model.embedding.embed_frame(frame, [crop.box for crop in crops], Priority.BULK)
        results = await unless_left(departure, embedding)
        cuts = [(crop, one) for crop, one in zip(crops, results, strict=True) if isinstance(one, EmbeddedCut)]
        hashes = await sha256_of_all([cut.content for _, cut in cuts])
        embedded = [
            EmbeddedNewCrop(crop.metadata, Picture(cut.content, sha256, cut.facts), cut.parts)
            for (crop, cut), sha256 in zip(cuts, hashes, strict=True)
        ]
        identities = [one.metadata.identity(one.picture.sha256) for one in embedded]
        stored = await store.store(dict(zip(identities, embedded, strict=True)))
        answers = (_told(stored[i], again) for i, again in zip(identities, _again(identities), strict=True))
        return [replace(next(answers), box=one.box) if isinstance(one, EmbeddedCut) else one for one in results]

    async def crop(self, crop_id: str) -> Crop:
        """One crop. Raises NotFound."""
        async with self._database.read() as session:
            crop = await GalleryRepository(session).crop(crop_id)
        if crop is None:
            raise NotFound(f"there is no crop {crop_id}")
        return crop

    async def page(
        self, which: Filter, before: tuple[int, int] | None, limit: int
    ) -> tuple[Sequence[Crop], tuple[int, int] | None]:
        """Crops that pass the filter, latest first, and the position to go on from, if there are more."""
        async with self._database.read() as session:
            crops = await GalleryRepository(session).page(which, before, limit + 1)
        if len(crops) <= limit:
            return crops, None
        last = crops[limit - 1]
        return crops[:limit], (last.captured_at, last.key)

    async def image(self, crop_id: str) -> tuple[bytes, Image]:
        """The picture of a crop as it was posted, and its facts. Raises NotFound."""
        crop = await self.crop(crop_id)
        async with self._database.read() as session:
            facts = await GalleryRepository(session).image(crop.image_sha256)
        content = await self._images.read(crop.image_sha256)
        if facts is None or content is None:
            raise NotFound(f"the image of crop {crop_id} is gone")
        return content, facts

    async def delete(self, crop_id: str) -> None:
        """Delete a crop; when this returns it is found no more and its image is gone. Raises NotFound."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            crop = await repository.crop(crop_id)
            if crop is None:
                raise NotFound(f"there is no crop {crop_id}")
            await repository.delete_crop(crop)
        with self._answering.use() as model:
            await model.index.catch_up()
        await self.delete_doomed_images()

    async def delete_doomed_images(self) -> None:
        """Delete the files of images that nothing refers to; also those that a crash left over."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            for sha256 in await repository.doomed_images():
                await self._images.delete(sha256)
                await repository.forget_doomed_image(sha256)

    # cameras

    async def camera(self, camera_id: str) -> tuple[Camera, int]:
        """A camera and how many crops it has. Raises NotFound."""
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            camera = await repository.camera(camera_id)
            counts = await repository.crop_counts()
        if camera is None:
            raise NotFound(f"there is no camera {camera_id!r}")
        return camera, counts.get(camera_id, 0)

    async def cameras(self) -> list[tuple[Camera, int]]:
        """All cameras, each with how many crops it has."""
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            cameras, counts = await repository.cameras(), await repository.crop_counts()
        return [(camera, counts.get(camera.id, 0)) for camera in cameras]

    async def put_camera(
        self, camera_id: str, name: str, place: str | None, time_zone: str | None
    ) -> tuple[Camera, int]:
        """Describe a camera; it need not exist before."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            camera = await repository.camera(camera_id)
            if camera is None:
                camera = Camera(id=camera_id, created_at=now_microseconds())
                repository.add(camera)
            camera.name, camera.place, camera.time_zone = name, place, time_zone
        return await self.camera(camera_id)


def _again(identities: Sequence[Identity]) -> list[bool]:
    """Of each, whether the same stands before it."""
    first = {identity: position for position, identity in reversed(list(enumerate(identities)))}
    return [first[identity] < position for position, identity in enumerate(identities)]


def _told(one: StoredCrop, again: bool) -> StoredCrop:
    """How a crop is answered that was given before in the same request, or not."""
    return replace(one, status="existing") if again else one
