"""All queries of the models: which one answers, which one is to take over, and how many crops each has embedded."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.gallery.tables import ANSWERS, DROPPED, KEPT, NEXT, Crop, Embedding, KnownModel
from app.kit.times import now_microseconds


@dataclass(frozen=True)
class ActiveModels:
    """The ids of the model that answers and of the one that is to take over, where there are such."""

    answering: str | None
    following: str | None

    @property
    def storing(self) -> str | None:
        """The model that embeds new crops: the one that answers, or the next one where none does."""
        return self.answering or self.following


class ModelRepository:
    """The queries of the models within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def active(self) -> ActiveModels:
        """Which models answer and are to; neither before the first service has started."""
        query = select(KnownModel.state, KnownModel.model_id).where(KnownModel.state.in_((ANSWERS, NEXT)))
        ids = {row.state: row.model_id for row in await self._session.execute(query)}
        return ActiveModels(ids.get(ANSWERS), ids.get(NEXT))

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

    async def count_crops(self) -> int:
        """How many crops there are."""
        return (await self._session.scalars(select(func.count()).select_from(Crop))).one()

    async def count_embeddings(self, model_id: str) -> int:
        """How many crops a model has embedded."""
        of_model = select(func.count()).select_from(Embedding).where(Embedding.model_id == model_id)
        return (await self._session.scalars(of_model)).one()
