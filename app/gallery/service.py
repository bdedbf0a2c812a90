"""The gallery's rules: how crops and cameras are stored, read and deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.database import Database
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError
from app.embedding.service import EmbeddedCrop
from app.errors import InvalidRequest, NotFound, UnknownCamera
from app.gallery.crop_store import CropStore, EmbeddedNewCrop, StoredCrop
from app.gallery.filters import CAMERA_FIELDS, CropFilter, CropSelection
from app.gallery.images import ImageStore
from app.gallery.labels import LabelChange, differing, labels_of
from app.gallery.metadata import CropMetadata
from app.gallery.repository import GalleryRepository, Identity
from app.gallery.selection import Selection
from app.gallery.tables import Camera, Crop, Image
from app.index.port import Filter
from app.kit.disconnect import Disconnect, cancel_on_disconnect
from app.kit.hashing import sha256_of_all
from app.kit.times import now_microseconds, to_microseconds
from app.models.active import ActiveModel, ModelChanged, RunningModel
from model.decoding import PictureError

CROPS_A_TRANSACTION = 500
"""Changed or deleted in one transaction, for which other writers wait."""


@dataclass(frozen=True)
class NewCrop:
    """The file and the metadata of a crop."""

    content: bytes
    metadata: CropMetadata


Failure = PictureError | EngineError
"""Why a crop was not stored."""


@dataclass(frozen=True)
class Relabelled:
    """How many crops a selection had, and how many of them had other labels."""

    matched: int
    changed: int


@dataclass(frozen=True)
class Deleted:
    """How many crops a selection had, and how many were deleted."""

    matched: int
    deleted: int


@dataclass(frozen=True)
class Stored:
    """The outcome of each crop, in order, and the model that embedded all of them."""

    model_id: str
    outcomes: Sequence[StoredCrop | Failure]


async def check_cameras(repository: GalleryRepository, crop_filter: CropFilter) -> None:
    """Raise UnknownCamera for a filter with an unknown camera, which would silently pass nothing."""
    for name in CAMERA_FIELDS:
        cameras = set(getattr(crop_filter, name))
        unknown = cameras - await repository.known_cameras(cameras) if cameras else set()
        if unknown:
            raise UnknownCamera(f"{name}: there is no camera {', '.join(sorted(unknown))}", name)


class GalleryService:
    """Stores, reads and deletes crops and cameras."""

    def __init__(self, database: Database, images: ImageStore, active_model: ActiveModel) -> None:
        self._database = database
        self._images = images
        self._active_model = active_model
        self._store_model = active_model.current
        self._crop_store = CropStore(database, images, self._store_model)

    # crops

    async def store(self, crops: Sequence[NewCrop], disconnect: Disconnect, update: bool = False) -> Stored:
        """Embed crops and store them; when this returns they are durable and can be found.

        update: change the labels of stored crops that differ from the given ones. Returns one outcome for each, in
        order: an unusable picture fails alone. Raises QueueFull, QueueClosed, NotReady, and ClientDisconnected where
        the client disconnects before all are embedded; then nothing is stored.
        """
        if self._active_model.trouble is not None:  # raise NotReady before embedding anything
            await self._active_model.refresh()
        while True:  # again where the model changed, so embeddings of two models never mix
            with self._active_model.use() as model:
                if self._store_model is not model:
                    self._crop_store, self._store_model = CropStore(self._database, self._images, model), model
                try:
                    outcomes = await self._embed_and_store(crops, disconnect, model, self._crop_store)
                    outcomes = await self._compare_labels(crops, outcomes, update)
                    if others := [n for n, crop in enumerate(crops) if _is_of_another_time(outcomes[n], crop)]:
                        again = [crops[n] for n in others]
                        stored = await self._embed_and_store(again, disconnect, model, self._crop_store)
                        for n, outcome in zip(others, stored, strict=True):
                            outcomes[n] = outcome
                    return Stored(model.id, outcomes)
                except ModelChanged:
                    pass
            await self._active_model.refresh()

    async def _embed_and_store(
        self, crops: Sequence[NewCrop], disconnect: Disconnect, model: RunningModel, store: CropStore
    ) -> list[StoredCrop | Failure]:
        hashes = await sha256_of_all([crop.content for crop in crops])
        identities = [crop.metadata.identity(sha256) for crop, sha256 in zip(crops, hashes, strict=True)]
        known = await store.find(set(identities))
        await store.mend(
            {identity: crop.content for identity, crop in zip(identities, crops, strict=True) if identity in known}
        )
        new: dict[Identity, NewCrop] = {}
        for identity, crop in zip(identities, crops, strict=True):
            if identity not in known:
                new.setdefault(identity, crop)
        embedding = model.embedding.embed([crop.content for crop in new.values()], Priority.BULK)
        outcomes = await cancel_on_disconnect(disconnect, embedding)
        failed: dict[Identity, Failure] = {}
        embedded: dict[Identity, EmbeddedNewCrop] = {}
        for (identity, crop), outcome in zip(new.items(), outcomes, strict=True):
            if isinstance(outcome, EmbeddedCrop):
                embedded[identity] = EmbeddedNewCrop(crop.metadata, crop.content, outcome.facts, outcome.parts)
            else:
                failed[identity] = outcome
        stored = known | await store.store(embedded)
        reported: list[StoredCrop | Failure] = []
        seen = set[Identity]()
        for identity in identities:
            if identity in failed:
                reported.append(failed[identity])
            elif identity in seen:  # a repetition within a request
                reported.append(replace(stored[identity], status="existing"))
            else:
                reported.append(stored[identity])
            seen.add(identity)
        return reported

    async def _compare_labels(
        self, crops: Sequence[NewCrop], outcomes: Sequence[StoredCrop | Failure], update: bool
    ) -> list[StoredCrop | Failure]:
        """The outcomes, with what differs; or with the changed crops: the last label that is posted of a crop holds."""
        compared: list[StoredCrop | Failure] = []
        labels: dict[int, dict[str, Any]] = {}
        changes: dict[int, dict[str, Any]] = {}
        for crop, outcome in zip(crops, outcomes, strict=True):
            if isinstance(outcome, StoredCrop) and outcome.status == "existing":
                key, posted = outcome.crop.key, crop.metadata.labels
                present = labels.setdefault(key, labels_of(outcome.crop))
                if differs := differing(present, posted):
                    outcome = replace(outcome, differs=differs)
                if differs and update:
                    outcome = replace(outcome, status="updated")
                    changed: dict[str, Any] = {name: posted[name] for name in differs}
                    changes[key] = changes.get(key, {}) | changed
                    present |= changed
            compared.append(outcome)
        if not changes:
            return compared
        rows = await self._change_labels(changes)
        return [
            replace(outcome, crop=rows[outcome.crop.key])
            if isinstance(outcome, StoredCrop) and outcome.crop.key in rows
            else outcome
            for outcome in compared
        ]

    async def _change_labels(self, changes: Mapping[int, LabelChange]) -> dict[int, Crop]:
        """The changed crops by key, without those that were deleted."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            await repository.set_labels_of_each(changes)
            rows = await repository.crops_by_key(changes.keys())
        await self._update_index()
        return rows

    async def crop(self, crop_id: str) -> Crop:
        """One crop. Raises NotFound."""
        async with self._database.read() as session:
            crop = await GalleryRepository(session).crop(crop_id)
        if crop is None:
            raise NotFound(f"there is no crop {crop_id}")
        return crop

    async def page(
        self, crop_filter: CropFilter, before: tuple[int, int] | None, limit: int
    ) -> tuple[Sequence[Crop], tuple[int, int] | None]:
        """A page of crops that pass the filter, latest first, and the position of the next page; None on the last.

        Raises UnknownCamera.
        """
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            await check_cameras(repository, crop_filter)
            crops = await repository.page(crop_filter.to_index(), before, limit + 1)
        if len(crops) <= limit:
            return crops, None
        last = crops[limit - 1]
        return crops[:limit], (last.captured_at, last.key)

    async def image(self, crop_id: str) -> tuple[bytes, Image]:
        """The picture of a crop as it was posted, and its row. Raises NotFound."""
        crop = await self.crop(crop_id)
        async with self._database.read() as session:
            facts = await GalleryRepository(session).image(crop.image_sha256)
        content = await self._images.read(crop.image_sha256)
        if facts is None or content is None:
            raise NotFound(f"the picture of crop {crop_id} is gone or damaged; posting it again mends that")
        return content, facts

    async def relabel(self, crop_id: str, change: LabelChange) -> Crop:
        """Change a crop's labels; when this returns, filters find it by the new ones only. Raises NotFound."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            crop = await repository.crop(crop_id)
            if crop is not None and differing(labels_of(crop), change):
                await repository.set_labels([crop.key], change)
        await self._update_index()
        return await self.crop(crop_id)

    async def relabel_all(self, selected: CropSelection, change: LabelChange, dry_run: bool) -> Relabelled:
        """Change the labels of all selected crops, or only count them.

        It is done in bounded transactions: where it ends early, the same call changes the rest. Raises UnknownCamera,
        and InvalidRequest where nothing is selected.
        """
        selection, matched, last = await self._select(selected)
        if dry_run:
            async with self._database.read() as session:
                return Relabelled(matched, await GalleryRepository(session).count(selection, change))
        key = changed = 0
        while True:
            async with self._database.write() as session:
                repository = GalleryRepository(session)
                keys = await repository.keys(selection, key, last, CROPS_A_TRANSACTION, change)
                if not keys:
                    break
                await repository.set_labels(keys, change)
            key, changed = keys[-1], changed + len(keys)
        await self._update_index()
        return Relabelled(matched, changed)

    async def delete(self, crop_id: str) -> None:
        """Delete a crop; when this returns no search finds it and its image is deleted. Raises NotFound."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            crop = await repository.crop(crop_id)
            if crop is None:
                raise NotFound(f"there is no crop {crop_id}")
            await repository.delete_crops([crop.key], now_microseconds())
        await self._update_index()
        await self.delete_orphaned_images()

    async def delete_all(self, selected: CropSelection, dry_run: bool) -> Deleted:
        """Delete all selected crops, or only count them.

        It is done in bounded transactions: where it ends early, the same call deletes the rest. Raises UnknownCamera,
        and InvalidRequest where nothing is selected.
        """
        selection, matched, last = await self._select(selected)
        return Deleted(matched, 0 if dry_run else await self._delete(selection, last))

    async def delete_camera(self, camera_id: str, dry_run: bool) -> Deleted:
        """Delete a camera and its crops, or only count them; see `delete_all`. Raises NotFound."""
        _, matched = await self.camera(camera_id)
        if dry_run:
            return Deleted(matched, 0)
        selection = Selection(Filter(camera_ids=frozenset({camera_id})))
        deleted = 0
        while True:
            async with self._database.write() as session:
                repository = GalleryRepository(session)
                last = await repository.last_key()
                if not await repository.crop_count(camera_id):
                    await repository.delete_camera(camera_id)
                    return Deleted(matched, deleted)
            deleted += await self._delete(selection, last)

    async def _delete(self, selection: Selection, last: int) -> int:
        """Delete a selection's crops up to a key; when this returns no search finds them. Their number."""
        key = deleted = 0
        while True:
            async with self._database.write() as session:
                repository = GalleryRepository(session)
                keys = await repository.keys(selection, key, last, CROPS_A_TRANSACTION)
                if not keys:
                    break
                await repository.delete_crops(keys, now_microseconds())
            await self.delete_orphaned_images()
            key, deleted = keys[-1], deleted + len(keys)
        await self._update_index()
        return deleted

    async def delete_orphaned_images(self) -> None:
        """Delete the files of orphaned images, also those that a crash left behind."""
        while True:
            async with self._database.write() as session:  # or a new crop's file might be deleted
                repository = GalleryRepository(session)
                hashes = await repository.orphaned_images(CROPS_A_TRANSACTION)
                if not hashes:
                    return
                await self._images.delete(hashes)
                await repository.remove_orphaned_images(hashes)

    async def _select(self, selected: CropSelection) -> tuple[Selection, int, int]:
        """The selection, how many crops it has now, and the key of the last crop that may be one of them."""
        selection = selected.selection()
        if selection == Selection(Filter()):
            raise InvalidRequest("give at least one filter or crop_ids: this would be for all crops", "crop_ids")
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            await check_cameras(repository, selected)
            return selection, await repository.count(selection), await repository.last_key()

    async def _update_index(self) -> None:
        with self._active_model.use() as model:
            await model.index.catch_up()

    # cameras

    async def camera(self, camera_id: str) -> tuple[Camera, int]:
        """A camera and how many crops it has. Raises NotFound."""
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            camera = await repository.camera(camera_id)
            if camera is None:
                raise NotFound(f"there is no camera {camera_id!r}")
            return camera, await repository.crop_count(camera_id)

    async def cameras(self) -> list[tuple[Camera, int]]:
        """All cameras, each with how many crops it has."""
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            cameras, counts = await repository.cameras(), await repository.crop_counts()
        return [(camera, counts.get(camera.id, 0)) for camera in cameras]

    async def put_camera(
        self, camera_id: str, name: str, place: str | None, time_zone: str | None
    ) -> tuple[Camera, int]:
        """Create or update a camera."""
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            camera = await repository.camera(camera_id)
            if camera is None:
                camera = Camera(id=camera_id, created_at=now_microseconds())
                repository.add(camera)
            camera.name, camera.place, camera.time_zone = name, place, time_zone
        return await self.camera(camera_id)


def _is_of_another_time(outcome: StoredCrop | Failure, crop: NewCrop) -> bool:
    """Whether a crop's known time is not that of the stored one, whose time was a guess until this request."""
    if isinstance(outcome, Failure) or outcome.crop.time_guessed or crop.metadata.time_guessed:
        return False
    return outcome.crop.captured_at != to_microseconds(crop.metadata.captured_at)
