"""All queries of the models: which one is active or next, what each has embedded, and what it has still to embed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Table
from app.gallery.tables import REMOVED, Change, Crop, Embedding
from app.kit.times import now_microseconds
from app.models.tables import ACTIVE, DROPPED, KEPT, NEXT, KnownModel, UnreadableCrop


@dataclass(frozen=True)
class ModelRoles:
    """The ids of the active and of the next model; None where there is no such model."""

    active_id: str | None
    next_id: str | None

    @property
    def embedding_id(self) -> str | None:
        """The model that embeds new crops: the active one, or the next one where none is active."""
        return self.active_id or self.next_id


@dataclass(frozen=True)
class Progress:
    """How many crops a model has embedded, and how many there are."""

    embedded: int
    total: int


@dataclass(frozen=True)
class PendingCrop:
    """A crop that a model has not embedded, and its picture."""

    key: int
    image_sha256: str


class ModelRepository:
    """The queries of the models within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    # the models and their states

    async def roles(self) -> ModelRoles:
        """The active and the next model; both None before the first service has started."""
        query = select(KnownModel.state, KnownModel.model_id).where(KnownModel.state.in_((ACTIVE, NEXT)))
        ids = {row.state: row.model_id for row in await self._session.execute(query)}
        return ModelRoles(ids.get(ACTIVE), ids.get(NEXT))

    async def model(self, model_id: str) -> KnownModel | None:
        """One model."""
        return await self._session.get(KnownModel, model_id)

    async def model_in(self, state: str) -> KnownModel | None:
        """The model in a state that one model at most can be in."""
        return (await self._session.scalars(select(KnownModel).where(KnownModel.state == state))).one_or_none()

    async def models_in(self, state: str) -> Sequence[KnownModel]:
        """The models in a state, by id."""
        query = select(KnownModel).where(KnownModel.state == state).order_by(KnownModel.model_id)
        return (await self._session.scalars(query)).all()

    async def upsert_model(self, model_id: str, checkpoint: str, state: str, allow_missing: bool = False) -> None:
        """Insert or update a model, and reset its progress."""
        known = await self.model(model_id)
        if known is None:
            known = KnownModel(model_id=model_id, created_at=now_microseconds())
            self._session.add(known)
        known.checkpoint, known.state, known.allow_missing = checkpoint, state, allow_missing
        known.crops_per_second = known.trouble = None
        await self._session.flush()

    async def set_progress(self, model_id: str, crops_per_second: float | None, trouble: str | None) -> None:
        """Store the speed at which a model embeds crops, and why it does not go on, if so."""
        await self._update(KnownModel.model_id == model_id, crops_per_second=crops_per_second, trouble=trouble)

    async def activate(self, model_id: str) -> None:
        """Make a model the active one at the end of this unit of work; the one before is kept."""
        await self._update(KnownModel.state == ACTIVE, state=KEPT)
        await self._update(KnownModel.model_id == model_id, state=ACTIVE, crops_per_second=None, trouble=None)

    async def drop(self, model_id: str) -> None:
        """Mark a model whose embeddings are to be deleted in the background."""
        await self._update(KnownModel.model_id == model_id, state=DROPPED, trouble=None)

    async def remove(self, model_id: str) -> None:
        """Delete a model's row and its marks of unreadable crops."""
        await self.remove_unreadable(model_id)
        await self._session.execute(delete(KnownModel).where(KnownModel.model_id == model_id))

    async def _update(self, which: ColumnElement[bool], **values: Any) -> None:
        await self._session.execute(update(KnownModel).where(which).values(values))

    # crops and embeddings

    async def count_crops(self) -> int:
        """How many crops the gallery has."""
        return (await self._session.scalars(select(func.count()).select_from(Crop))).one()

    async def count_embeddings(self, model_id: str) -> int:
        """How many crops a model has embedded."""
        of_model = select(func.count()).select_from(Embedding).where(Embedding.model_id == model_id)
        return (await self._session.scalars(of_model)).one()

    async def progress(self, model_id: str) -> Progress:
        """How many of the gallery's crops a model has embedded."""
        return Progress(await self.count_embeddings(model_id), await self.count_crops())

    async def has_embedded_all(self, model_id: str) -> bool:
        """Whether no crop is pending for a model."""
        return not await self.pending(model_id, 0, 1)

    async def pending(self, model_id: str, after: int, limit: int) -> list[PendingCrop]:
        """The next pending crops by key: those that a model has not embedded, and that are not marked as unreadable."""
        unreadable = exists().where(UnreadableCrop.model_id == model_id, UnreadableCrop.crop_key == Crop.key)
        pending = select(Crop.key, Crop.image_sha256).where(
            Crop.key > after, ~_has_embedded(model_id, Crop.key), ~unreadable
        )
        return [PendingCrop(*row) for row in await self._session.execute(pending.order_by(Crop.key).limit(limit))]

    async def still_pending(self, model_id: str, keys: Collection[int]) -> set[int]:
        """The keys of existing crops that a model has not embedded."""
        query = select(Crop.key).where(Crop.key.in_(keys), ~_has_embedded(model_id, Crop.key))
        return set(await self._session.scalars(query))

    async def drop_embeddings(self, model_id: str, limit: int) -> int:
        """Delete at most `limit` of a model's embeddings, and log it; the number of deleted embeddings."""
        of_model = Embedding.model_id == model_id
        first = select(Embedding.crop_key).where(of_model).order_by(Embedding.crop_key).limit(limit)
        keys = list(await self._session.scalars(first))
        if keys:
            await self._session.execute(
                delete(Embedding).where(of_model, Embedding.crop_key >= keys[0], Embedding.crop_key <= keys[-1])
            )
            await self._insert(Change, [{"model_id": model_id, "crop_key": key, "what": REMOVED} for key in keys])
        return len(keys)

    # crops that a model could not embed

    async def add_unreadable(self, model_id: str, problems: Mapping[int, str]) -> None:
        """Mark crops, by key, as unreadable by a model."""
        marked = select(UnreadableCrop.crop_key).where(
            UnreadableCrop.model_id == model_id, UnreadableCrop.crop_key.in_(problems)
        )
        new = problems.keys() - set(await self._session.scalars(marked))
        rows = [{"model_id": model_id, "crop_key": key, "problem": problems[key]} for key in sorted(new)]
        if rows:
            await self._insert(UnreadableCrop, rows)

    async def count_unreadable(self, model_id: str) -> int:
        """How many crops a model could not embed."""
        unreadable = select(func.count()).select_from(UnreadableCrop).where(*_is_unreadable(model_id))
        return (await self._session.scalars(unreadable)).one()

    async def unreadable(self, model_id: str, limit: int) -> list[tuple[str, str]]:
        """The ids of crops that a model could not embed, and why, by key."""
        query = (
            select(Crop.id, UnreadableCrop.problem)
            .join(Crop, Crop.key == UnreadableCrop.crop_key)
            .where(*_is_unreadable(model_id))
            .order_by(UnreadableCrop.crop_key)
            .limit(limit)
        )
        return [(crop_id, problem) for crop_id, problem in await self._session.execute(query)]

    async def remove_unreadable(self, model_id: str) -> None:
        """Remove the marks of unreadable crops, so that they are tried again."""
        await self._session.execute(delete(UnreadableCrop).where(UnreadableCrop.model_id == model_id))

    async def _insert(self, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        await self._session.execute(insert(table.core()), rows)


def _has_embedded(model_id: str, crop_key: Any) -> ColumnElement[bool]:
    return exists().where(Embedding.model_id == model_id, Embedding.crop_key == crop_key)


def _is_unreadable(model_id: str) -> tuple[ColumnElement[bool], ...]:
    """Excludes marked crops that were embedded later, when they were posted again."""
    return UnreadableCrop.model_id == model_id, ~_has_embedded(model_id, UnreadableCrop.crop_key)
