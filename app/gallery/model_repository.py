"""All queries of the models: which one is active, which one is next, and how many crops each has embedded."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.gallery.tables import ACTIVE, DROPPED, KEPT, NEXT, Crop, Embedding, KnownModel
from app.kit.times import now_microseconds


@dataclass(frozen=True)
class ModelRoles:
    """The ids of the active and of the next model; None where there is no such model."""

    active_id: str | None
    next_id: str | None

    @property
    def embedding_id(self) -> str | None:
        """The model that embeds new crops: the active one, or the next one where none is active."""
        return self.active_id or self.next_id


class ModelRepository:
    """The queries of the models within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

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

    async def put_model(self, model_id: str, checkpoint: str, state: str, allow_missing: bool = False) -> None:
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
        progress = {"crops_per_second": crops_per_second, "trouble": trouble}
        await self._session.execute(update(KnownModel).where(KnownModel.model_id == model_id).values(progress))

    async def activate(self, model_id: str) -> None:
        """Make a model the active one at the end of this unit of work; the one before is kept."""
        models = update(KnownModel)
        await self._session.execute(models.where(KnownModel.state == ACTIVE).values(state=KEPT))
        active = {"state": ACTIVE, "crops_per_second": None, "trouble": None}
        await self._session.execute(models.where(KnownModel.model_id == model_id).values(active))

    async def drop(self, model_id: str) -> None:
        """Mark a model whose embeddings are to be deleted in the background."""
        await self._session.execute(
            update(KnownModel).where(KnownModel.model_id == model_id).values(state=DROPPED, trouble=None)
        )

    async def remove(self, model_id: str) -> None:
        """Delete a model's row."""
        await self._session.execute(delete(KnownModel).where(KnownModel.model_id == model_id))

    async def count_crops(self) -> int:
        """How many crops the gallery has."""
        return (await self._session.scalars(select(func.count()).select_from(Crop))).one()

    async def count_embeddings(self, model_id: str) -> int:
        """How many crops a model has embedded."""
        of_model = select(func.count()).select_from(Embedding).where(Embedding.model_id == model_id)
        return (await self._session.scalars(of_model)).one()
