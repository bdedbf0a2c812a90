"""All queries of changing the model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Table
from app.gallery.tables import ANSWERS, DROPPED, KEPT, REMOVED, Change, Crop, Embedding, KnownModel
from app.kit.times import now_microseconds
from app.reindex.tables import UnreadableCrop


@dataclass(frozen=True)
class Unembedded:
    """A crop that a model has not embedded, and its picture."""

    key: int
    image_sha256: str


class ReindexRepository:
    """The queries of changing the model within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    # models

    async def model(self, model_id: str) -> KnownModel | None:
        """One model."""
        return await self._session.get(KnownModel, model_id)

    async def model_that(self, state: str) -> KnownModel | None:
        """The model of a state that only one can be in."""
        return (await self._session.scalars(select(KnownModel).where(KnownModel.state == state))).one_or_none()

    async def models_that(self, state: str) -> Sequence[KnownModel]:
        """The models of a state, by id."""
        query = select(KnownModel).where(KnownModel.state == state).order_by(KnownModel.model_id)
        return (await self._session.scalars(query)).all()

    async def models(self) -> Sequence[KnownModel]:
        """All models that are known, by id."""
        return (await self._session.scalars(select(KnownModel).order_by(KnownModel.model_id))).all()

    async def put_model(self, model_id: str, checkpoint: str, state: str, lossy: bool = False) -> None:
        """Note a model, be it known before or not."""
        known = await self.model(model_id)
        if known is None:
            known = KnownModel(model_id=model_id, created_at=now_microseconds())
            self._session.add(known)
        known.checkpoint, known.state, known.lossy = checkpoint, state, lossy
        known.crops_per_second = known.trouble = None
        await self._session.flush()

    async def tell(self, model_id: str, crops_per_second: float | None, trouble: str | None) -> None:
        """Note how a model's embedding goes."""
        how = {"crops_per_second": crops_per_second, "trouble": trouble}
        await self._session.execute(update(KnownModel).where(KnownModel.model_id == model_id).values(how))

    async def answer_by(self, model_id: str) -> None:
        """From the end of this unit of work on, this model answers; the one before is kept."""
        models = update(KnownModel)
        await self._session.execute(models.where(KnownModel.state == ANSWERS).values(state=KEPT))
        now = {"state": ANSWERS, "crops_per_second": None, "trouble": None}
        await self._session.execute(models.where(KnownModel.model_id == model_id).values(now))

    async def drop(self, model_id: str) -> None:
        """Let a model's embeddings be deleted, little by little."""
        await self._session.execute(
            update(KnownModel).where(KnownModel.model_id == model_id).values(state=DROPPED, trouble=None)
        )

    async def forget(self, model_id: str) -> None:
        """Delete what is noted of a model."""
        await self._session.execute(delete(KnownModel).where(KnownModel.model_id == model_id))

    # crops

    async def count_crops(self) -> int:
        """How many crops there are."""
        return (await self._session.scalars(select(func.count()).select_from(Crop))).one()

    async def count_embeddings(self, model_id: str) -> int:
        """How many crops a model has embedded."""
        of_model = select(func.count()).select_from(Embedding).where(Embedding.model_id == model_id)
        return (await self._session.scalars(of_model)).one()

    async def unembedded(self, model_id: str, after: int, limit: int) -> list[Unembedded]:
        """The next crops by key that a model has not embedded and that are not noted as unreadable."""
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
        """Those of these crops that there are and that a model has not embedded."""
        embedded = exists().where(Embedding.model_id == model_id, Embedding.crop_key == Crop.key)
        return set(await self._session.scalars(select(Crop.key).where(Crop.key.in_(keys), ~embedded)))

    async def add_unreadable(self, model_id: str, problems: Mapping[int, str]) -> None:
        """Note crops, by key, that a model waits for no more."""
        if not problems:
            return
        known = select(UnreadableCrop.crop_key).where(
            UnreadableCrop.model_id == model_id, UnreadableCrop.crop_key.in_(problems)
        )
        fresh = problems.keys() - set(await self._session.scalars(known))
        rows = [{"model_id": model_id, "crop_key": key, "problem": problems[key]} for key in sorted(fresh)]
        if rows:
            await self._session.execute(insert(Table.metadata.tables[UnreadableCrop.__tablename__]), rows)

    async def count_unreadable(self, model_id: str) -> int:
        """How many crops a model cannot find."""
        unreadable = select(func.count()).select_from(UnreadableCrop).where(*_is_unreadable(model_id))
        return (await self._session.scalars(unreadable)).one()

    async def unreadable(self, model_id: str, limit: int) -> list[tuple[str, str]]:
        """The ids of crops that a model cannot find, and why, by key."""
        query = (
            select(Crop.id, UnreadableCrop.problem)
            .join(Crop, Crop.key == UnreadableCrop.crop_key)
            .where(*_is_unreadable(model_id))
            .order_by(UnreadableCrop.crop_key)
            .limit(limit)
        )
        return [(crop_id, problem) for crop_id, problem in await self._session.execute(query)]

    async def forget_unreadable(self, model_id: str) -> None:
        """Let crops be tried again that could not be embedded."""
        await self._session.execute(delete(UnreadableCrop).where(UnreadableCrop.model_id == model_id))

    async def drop_embeddings(self, model_id: str, limit: int) -> int:
        """Delete some of a model's embeddings, and log that; how many there were."""
        some = (
            select(Embedding.crop_key).where(Embedding.model_id == model_id).order_by(Embedding.crop_key).limit(limit)
        )
        keys = list(await self._session.scalars(some))
        if keys:
            of_model = Embedding.model_id == model_id
            await self._session.execute(
                delete(Embedding).where(of_model, Embedding.crop_key >= keys[0], Embedding.crop_key <= keys[-1])
            )
            rows = [{"model_id": model_id, "crop_key": key, "what": REMOVED} for key in keys]
            await self._session.execute(insert(Table.metadata.tables[Change.__tablename__]), rows)
        return len(keys)


def _is_unreadable(model_id: str) -> tuple[ColumnElement[bool], ...]:
    """Of what was noted: a crop that was posted again since may be embedded."""
    embedded = exists().where(Embedding.model_id == model_id, Embedding.crop_key == UnreadableCrop.crop_key)
    return UnreadableCrop.model_id == model_id, ~embedded
