"""The queries of cameras, crops, images and deletions."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Table, insert_of
from app.gallery.conditions import column_of, sql_of
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.labels import LabelChange, columns_of, compared_columns
from app.gallery.selection import Selection
from app.gallery.tables import (
    ADDED,
    REMOVED,
    Camera,
    Crop,
    Deletion,
    Embedding,
    Gallery,
    Image,
    ImageUse,
    OrphanedImage,
    SearchPicture,
)
from app.index import port as index

_VALUES_PER_STATEMENT = 10_000  # databases limit them
Identity = tuple[str, int | None, str]
"""The natural key of a crop: camera_id, captured_at, image_sha256; a guessed captured_at is None."""


class GalleryRepository:
    """The gallery's queries within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def gallery_id(self) -> str:
        """The gallery's id."""
        return (await self._session.scalars(select(Gallery.id))).one()

    # cameras

    async def camera(self, camera_id: str) -> Camera | None:
        """One camera."""
        return await self._session.get(Camera, camera_id)

    async def cameras(self) -> Sequence[Camera]:
        """All cameras by id."""
        return (await self._session.scalars(select(Camera).order_by(Camera.id))).all()

    async def crop_counts(self) -> Mapping[str, int]:
        """How many crops each camera has; cameras without any are left out."""
        rows = await self._session.execute(select(Crop.camera_id, func.count()).group_by(Crop.camera_id))
        return {row[0]: row[1] for row in rows}

    async def crop_count(self, camera_id: str) -> int:
        """How many crops a camera has."""
        crops = select(func.count()).select_from(Crop).where(Crop.camera_id == camera_id)
        return (await self._session.scalars(crops)).one()

    async def known_cameras(self, camera_ids: Collection[str]) -> set[str]:
        """Those of the ids that belong to an existing camera."""
        return set(await self._session.scalars(select(Camera.id).where(Camera.id.in_(camera_ids))))

    async def delete_camera(self, camera_id: str) -> None:
        """Delete a camera that has no crops."""
        await self._session.execute(delete(Camera.core()).where(Camera.id == camera_id))

    def add(self, camera: Camera) -> None:
        """Add a camera."""
        self._session.add(camera)

    async def add_cameras(self, camera_ids: Collection[str], created_at: int) -> None:
        """Insert the cameras that do not exist yet, each named by its id."""
        rows = [{"id": camera_id, "name": camera_id, "created_at": created_at} for camera_id in sorted(camera_ids)]
        await self._add_missing(Camera, rows)

    # crops

    async def crops_by_identity(self, identities: Collection[Identity]) -> dict[Identity, Crop]:
        """Existing crops, by identity.

        A guessed time, of the identity or of the crop, equals any time: then camera and image are enough.
        """
        found = await self._crops_of_that_time([identity for identity in identities if identity[1] is not None])
        rest = [identity for identity in identities if identity not in found]
        if rest:
            earliest = await self._earliest_crops({sha256 for _, _, sha256 in rest})
            for identity in rest:
                camera_id, captured_at, sha256 = identity
                same = [earliest.get((camera_id, sha256, guessed)) for guessed in (True, False)]
                crops = [crop for crop in same if crop is not None and (captured_at is None or crop.time_guessed)]
                if crops:
                    found[identity] = min(crops, key=lambda crop: crop.key)
        return found

    async def _crops_of_that_time(self, identities: Collection[Identity]) -> dict[Identity, Crop]:
        """Crops with exactly these identities."""
        if not identities:
            return {}
        _, times, images = zip(*identities, strict=True)
        # Not by tuples: SQLite finds no index for them and reads all crops.
        query = select(Crop).where(Crop.captured_at.in_(set(times)), Crop.image_sha256.in_(set(images)))
        crops = {
            (crop.camera_id, crop.captured_at, crop.image_sha256): crop for crop in await self._session.scalars(query)
        }
        return {identity: crops[identity] for identity in identities if identity in crops}

    async def _earliest_crops(self, images: Collection[str]) -> dict[tuple[str, str, bool], Crop]:
        """The first crop of these images by camera, image, and whether its time is guessed."""
        first = (
            select(func.min(Crop.key))
            .where(Crop.image_sha256.in_(images))
            .group_by(Crop.camera_id, Crop.image_sha256, Crop.time_guessed)
        )
        crops = await self._session.scalars(select(Crop).where(Crop.key.in_(first)))
        return {(crop.camera_id, crop.image_sha256, crop.time_guessed): crop for crop in crops}

    async def crop(self, crop_id: str) -> Crop | None:
        """One crop."""
        return (await self._session.scalars(select(Crop).where(Crop.id == crop_id))).one_or_none()

    async def crops(self, crop_ids: Collection[str]) -> dict[str, Crop]:
        """Crops by id; those that do not exist are left out."""
        return {crop.id: crop for crop in await self._session.scalars(select(Crop).where(Crop.id.in_(crop_ids)))}

    async def crops_by_key(self, keys: Collection[int]) -> dict[int, Crop]:
        """Crops by key; those that do not exist are left out."""
        return {crop.key: crop for crop in await self._session.scalars(select(Crop).where(Crop.key.in_(keys)))}

    async def page(self, crop_filter: index.Filter, before: tuple[int, int] | None, limit: int) -> Sequence[Crop]:
        """Crops that pass the filter, latest first, from just after the position (captured_at, key)."""
        query = select(Crop).where(*map(sql_of, crop_filter.conditions()))
        if before is not None:
            query = query.where(tuple_(Crop.captured_at, Crop.key) < tuple_(*before))
        query = query.order_by(Crop.captured_at.desc(), Crop.key.desc()).limit(limit)
        return (await self._session.scalars(query)).all()

    async def last_key(self) -> int:
        """The key of the crop that was stored last; 0 where there is none."""
        key: int = (await self._session.scalars(select(func.coalesce(func.max(Crop.key), 0)))).one()
        return key

    async def count(self, selection: Selection, change: LabelChange | None = None) -> int:
        """How many crops a selection has, or how many of them a change of labels would change."""
        crops = select(func.count()).select_from(Crop).where(*_selected(selection, change))
        return (await self._session.scalars(crops)).one()

    async def keys(
        self, selection: Selection, after: int, last: int, limit: int, change: LabelChange | None = None
    ) -> Sequence[int]:
        """The next keys of a selection, from just after one key up to another; see `count`."""
        in_range = Crop.key > after, Crop.key <= last
        query = select(Crop.key).where(*in_range, *_selected(selection, change)).order_by(Crop.key).limit(limit)
        return (await self._session.scalars(query)).all()

    async def set_labels(self, keys: Collection[int], change: LabelChange) -> None:
        """Change the labels of crops, and log it as additions, which replace the fields of indexed crops."""
        changing = update(Crop.core()).where(Crop.key.in_(keys)).values(columns_of(change))
        await self._session.execute(changing)
        await EmbeddingRepository(self._session).log(keys, ADDED)

    async def set_labels_of_each(self, changes: Mapping[int, LabelChange]) -> None:
        """Change the labels of crops, by key, each in its own way; see `set_labels`."""
        by_labels: dict[frozenset[str], list[dict[str, Any]]] = {}
        for key, change in changes.items():
            by_labels.setdefault(frozenset(change), []).append({"of": key, **columns_of(change)})
        crops = Crop.core()
        for rows in by_labels.values():
            await self._session.execute(update(crops).where(crops.c.key == bindparam("of")), rows)
        await EmbeddingRepository(self._session).log(changes.keys(), ADDED)

    async def add_crops(self, crops: Sequence[Crop]) -> None:
        """Insert crops and set their keys. The objects do not become part of the session."""
        if not crops:
            return
        inserting = insert(Crop.core()).returning(Crop.id, Crop.key)
        inserted = await self._session.execute(inserting, [_values(crop) for crop in crops])
        keys = {row.id: row.key for row in inserted}
        for crop in crops:
            crop.key = keys[crop.id]

    async def delete_crops(self, keys: Collection[int], deleted_at: int) -> None:
        """Delete crops and their embeddings, log it, and let go of their pictures, also where searches have them."""
        of_crops = Crop.core().c.key.in_(keys)
        hashes = set(await self._session.scalars(select(Crop.image_sha256).where(of_crops)))
        await EmbeddingRepository(self._session).log(keys, REMOVED)
        await self._session.execute(delete(Embedding.core()).where(Embedding.crop_key.in_(keys)))
        await self._session.execute(delete(Crop.core()).where(of_crops))
        unused = hashes - await self._hashes_of_crops(hashes)
        await self._session.execute(delete(ImageUse.core()).where(ImageUse.image_sha256.in_(unused)))
        pictures = update(SearchPicture.core()).where(SearchPicture.sha256.in_(unused))
        await self._session.execute(pictures.values(content=b"", sha256=None))
        await self._orphan(unused)
        await self.log_deletion(deleted_at)

    async def log_deletion(self, deleted_at: int) -> None:
        """Log that something was deleted, so that what is left of it is erased."""
        await self._session.execute(insert(Deletion.core()).values(deleted_at=deleted_at))

    async def deletions(self) -> tuple[int, int] | None:
        """The number of the last logged deletion, and the time of the first; None where there is none."""
        query = select(func.max(Deletion.id), func.min(Deletion.deleted_at))
        last, first_at = (await self._session.execute(query)).one()
        return None if last is None else (last, first_at)

    async def remove_deletions(self, to: int) -> None:
        """Remove the logged deletions up to a number: nothing is left of what was deleted."""
        await self._session.execute(delete(Deletion.core()).where(Deletion.id <= to))

    async def known_ids(self, crop_ids: Collection[str]) -> set[str]:
        """Those of the ids that belong to an existing crop."""
        known: set[str] = set()
        ids = sorted(crop_ids)
        for start in range(0, len(ids), _VALUES_PER_STATEMENT):
            chunk = ids[start : start + _VALUES_PER_STATEMENT]
            known.update(await self._session.scalars(select(Crop.id).where(Crop.id.in_(chunk))))
        return known

    async def has_any(self, crop_filter: index.Filter) -> bool:
        """Whether a crop passes a filter."""
        found = exists().where(*map(sql_of, crop_filter.conditions()))
        return bool(await self._session.scalar(select(found)))

    # images

    async def image(self, sha256: str) -> Image | None:
        """The row of one image."""
        return await self._session.get(Image, sha256)

    async def add_images(self, images: Mapping[str, Mapping[str, Any]]) -> None:
        """Insert the rows of images, by hash, that do not exist yet; none of them stays marked as orphaned."""
        await self._add_missing(Image, [{"sha256": sha256, **images[sha256]} for sha256 in sorted(images)])
        await self.remove_orphaned_images(images.keys())

    async def used_images(self, search_id: str) -> Sequence[str]:
        """The hashes of the query pictures of a search before 0.2, in their order."""
        query = select(ImageUse.image_sha256).where(ImageUse.owner_id == search_id).order_by(ImageUse.position)
        return (await self._session.scalars(query)).all()

    async def remove_image_uses(self, search_ids: Collection[str]) -> None:
        """Let go of the query pictures of searches before 0.2."""
        of_searches = ImageUse.core().c.owner_id.in_(search_ids)
        hashes = set(await self._session.scalars(select(ImageUse.image_sha256).where(of_searches)))
        if not hashes:
            return
        await self._session.execute(delete(ImageUse.core()).where(of_searches))
        by_searches = select(ImageUse.image_sha256).where(ImageUse.image_sha256.in_(hashes))
        await self._orphan(hashes - await self._hashes_of_crops(hashes) - set(await self._session.scalars(by_searches)))

    async def orphaned_images(self, limit: int) -> Sequence[str]:
        """The hashes of some images whose files must be deleted."""
        return (await self._session.scalars(select(OrphanedImage.sha256).limit(limit))).all()

    async def remove_orphaned_images(self, hashes: Collection[str]) -> None:
        """Remove the marks of images whose files are deleted."""
        await self._session.execute(delete(OrphanedImage.core()).where(OrphanedImage.sha256.in_(hashes)))

    async def _hashes_of_crops(self, hashes: Collection[str]) -> set[str]:
        """Those of the hashes that belong to a crop's picture."""
        return set(await self._session.scalars(select(Crop.image_sha256).where(Crop.image_sha256.in_(hashes))))

    async def _orphan(self, hashes: Collection[str]) -> None:
        """Mark images that nothing refers to as orphaned."""
        await self._session.execute(delete(Image.core()).where(Image.sha256.in_(hashes)))
        await self._add_missing(OrphanedImage, [{"sha256": sha256} for sha256 in sorted(hashes)])

    async def _add_missing(self, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows whose key does not exist yet."""
        if rows:
            await self._session.execute(insert_of(self._session, table).on_conflict_do_nothing(), rows)


def _values(row: Table) -> dict[str, Any]:
    """The values of a new row without its generated key."""
    table = type(row).core()
    return {
        column.key: getattr(row, column.key) for column in table.columns if column is not table.autoincrement_column
    }


def _selected(selection: Selection, change: LabelChange | None) -> list[ColumnElement[bool]]:
    """The conditions of a selection and, where there is one, of crops that a change would change."""
    conditions = [sql_of(condition) for condition in selection.crop_filter.conditions()]
    if selection.crop_ids:
        conditions.append(Crop.id.in_(selection.crop_ids))
    if change is not None:
        columns = compared_columns(change)
        conditions.append(or_(false(), *(column_of(name).is_distinct_from(value) for name, value in columns.items())))
    return conditions
