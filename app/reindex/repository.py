"""All queries of reindexing: crops that a model has not embedded, and embeddings to delete."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Table
from app.gallery.tables import REMOVED, Change, Crop, Embedding
from app.reindex.tables import UnreadableCrop


@dataclass(frozen=True)
class Unembedded:
    """A crop that a model has not embedded, and its picture."""

    key: int
    image_sha256: str


class ReindexRepository:
    """The queries of reindexing within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def unembedded(self, model_id: str, after: int, limit: int) -> list[Unembedded]:
        """The next crops by key that a model has not embedded and that are not marked as unreadable."""
        query = (
            select(Crop.key, Crop.image_sha256)
            .where(
                Crop.key > after,
                ~exists().where(Embedding.model_id == model_id, Embedding.crop_key == Crop.key),
                ~exists().where(UnreadableCrop.model_id == model_id, UnreadableCrop.crop_key == Crop.key),
            )
            .order_by(Crop.key)
            .limit(limit)
        )
        return [Unembedded(*row) for row in await self._session.execute(query)]

    async def still_unembedded(self, model_id: str, keys: Collection[int]) -> set[int]:
        """The keys of existing crops that a model has not embedded."""
        embedded = exists().where(Embedding.model_id == model_id, Embedding.crop_key == Crop.key)
        return set(await self._session.scalars(select(Crop.key).where(Crop.key.in_(keys), ~embedded)))

    async def add_unreadable(self, model_id: str, problems: Mapping[int, str]) -> None:
        """Mark crops, by key, as unreadable by a model."""
        if not problems:
            return
        known = select(UnreadableCrop.crop_key).where(
            UnreadableCrop.model_id == model_id, UnreadableCrop.crop_key.in_(problems)
        )
        new = problems.keys() - set(await self._session.scalars(known))
        rows = [{"model_id": model_id, "crop_key": key, "problem": problems[key]} for key in sorted(new)]
        if rows:
            await self._session.execute(insert(Table.metadata.tables[UnreadableCrop.__tablename__]), rows)

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

    async def drop_embeddings(self, model_id: str, limit: int) -> int:
        """Delete at most `limit` of a model's embeddings, and log it; the number of deleted embeddings."""
        first = (
            select(Embedding.crop_key).where(Embedding.model_id == model_id).order_by(Embedding.crop_key).limit(limit)
        )
        keys = list(await self._session.scalars(first))
        if keys:
            of_model = Embedding.model_id == model_id
            await self._session.execute(
                delete(Embedding).where(of_model, Embedding.crop_key >= keys[0], Embedding.crop_key <= keys[-1])
            )
            rows = [{"model_id": model_id, "crop_key": key, "what": REMOVED} for key in keys]
            await self._session.execute(insert(Table.metadata.tables[Change.__tablename__]), rows)
        return len(keys)


def _is_unreadable(model_id: str) -> tuple[ColumnElement[bool], ...]:
    """Excludes marked crops that were embedded later, when they were posted again."""
    embedded = exists().where(Embedding.model_id == model_id, Embedding.crop_key == UnreadableCrop.crop_key)
    return UnreadableCrop.model_id == model_id, ~embedded
