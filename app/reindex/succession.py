"""Which model a service begins with, and when one takes over by itself: where none answers that finds all crops."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.gallery.model_repository import ActiveModels, ModelRepository
from app.gallery.tables import ANSWERS, KEPT, NEXT, KnownModel
from app.reindex.checkpoints import CheckpointLost, CheckpointStore
from app.reindex.repository import ReindexRepository
from model.checkpoint import SUPERSEDED

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Plan:
    """Which models are to answer and to follow, and why, where that differs from what the database says.

    again: whether pictures that could not be read are tried again.
    """

    active: ActiveModels
    reason: str | None
    again: bool


class Succession:
    """Settles, when a service starts, which model it runs.

    The crops of a gallery are embedded anew where no model answers that has embedded all of them: because no version
    before this one noted which model answers, because crops lack its embeddings, or because its checkpoint is lost. So
    they are where the model that answers shipped with an earlier version, which goes on answering meanwhile.
    """

    def __init__(self, database: Database, checkpoints: CheckpointStore, own_id: str, own: Path) -> None:
        """own_id, own: the model of the service's settings, and its checkpoint."""
        self._database = database
        self._checkpoints = checkpoints
        self._own_id = own_id
        self._own = own

    async def settle(self) -> str:
        """The id of the model to run, after the database was told which are to answer and to follow."""
        async with self._database.read() as session:
            models = ModelRepository(session)
            known = [await models.model_that(ANSWERS), await models.model_that(NEXT)]
        lost = {one.model_id for one in known if one is not None and await self._is_lost(one)}
        async with self._database.read() as session:
            active, plan = await ModelRepository(session).active(), await self._plan(session, lost)
        if plan is not None:
            kept = await self._keep()
            async with self._database.write() as session:
                plan = await self._plan(session, lost)  # another service may have been faster
                if plan is not None:
                    await self._carry_out(session, plan, kept, lost)
                active = await ModelRepository(session).active()
        answering = active.answering
        able = answering is not None and self._can_run(answering, lost)
        await self._tell(active, able, None if plan is None else plan.reason)
        return str(answering if able else active.following)

    async def _plan(self, session: AsyncSession, lost: Collection[str]) -> _Plan | None:
        """None where everything is as it should be."""
        active = await ModelRepository(session).active()
        target, reason = await self._target(session, active, lost)
        following = None if target.following is None else await ModelRepository(session).model(target.following)
        waits = following is not None and following.trouble is not None
        again = waits and (target.answering is None or not self._can_run(target.answering, lost))
        if target == active and not again and self._own_id not in lost:
            return None
        return _Plan(target, reason if target != active else None, again)

    async def _target(
        self, session: AsyncSession, active: ActiveModels, lost: Collection[str]
    ) -> tuple[ActiveModels, str | None]:
        """Which models are to answer and to follow, and why."""
        answering, following = active.answering, active.following
        able = following if following is not None and self._can_run(following, lost) else None
        if answering is None:
            if following is None and await _has_embedded_all(session, self._own_id):  # of none, in a new gallery
                return ActiveModels(self._own_id, None), None
            return ActiveModels(None, able or self._own_id), "no model is known to have embedded all crops"
        can_run, gives_way = self._can_run(answering, lost), await self._gives_way(session, answering)
        if not await _has_embedded_all(session, answering):
            successor = answering if can_run and not gives_way else self._own_id
            return ActiveModels(None, able or successor), f"{answering} has not embedded all crops"
        if not can_run:
            return ActiveModels(answering, able or self._own_id), f"the checkpoint of {answering} is lost"
        if gives_way:
            return ActiveModels(answering, following or self._own_id), f"{answering} shipped with an earlier version"
        return active, None

    def _can_run(self, model_id: str, lost: Collection[str]) -> bool:
        return model_id == self._own_id or model_id not in lost

    async def _gives_way(self, session: AsyncSession, answering: str) -> bool:
        """Whether a model makes room for this version's. Not where that is known: somebody has gone back, then."""
        if answering not in SUPERSEDED or answering == self._own_id:
            return False
        return await ModelRepository(session).model(self._own_id) is None

    async def _carry_out(self, session: AsyncSession, plan: _Plan, kept: str, lost: Collection[str]) -> None:
        models = ModelRepository(session)
        wanted = {
            model_id: state for state, model_id in ((ANSWERS, plan.active.answering), (NEXT, plan.active.following))
        }
        for state in (ANSWERS, NEXT):
            model = await models.model_that(state)
            if model is not None and wanted.get(model.model_id) != state:
                await models.put_model(model.model_id, model.checkpoint, KEPT, model.lossy)
        for model_id, state in wanted.items():
            if model_id is not None:
                await self._put(models, model_id, state, kept, lost)
        if plan.again and plan.active.following is not None:
            await ReindexRepository(session).forget_unreadable(plan.active.following)
            await models.tell(plan.active.following, None, None)

    async def _put(self, models: ModelRepository, model_id: str, state: str, kept: str, lost: Collection[str]) -> None:
        own, model = model_id == self._own_id, await models.model(model_id)
        if model is None:
            await models.put_model(model_id, kept, state)
        elif model.state != state or (own and model_id in lost):
            await models.put_model(model_id, kept if own else model.checkpoint, state, model.lossy)

    async def _is_lost(self, model: KnownModel) -> bool:
        if model.model_id == self._own_id and model.state == ANSWERS:
            return False  # the service's own file does
        try:
            await self._checkpoints.path(model.checkpoint)
        except CheckpointLost as error:
            _log.warning("a checkpoint is lost", model_id=model.model_id, error=str(error))
            return True
        return False

    async def _keep(self) -> str:
        """Keep the service's own checkpoint for all services; its name."""
        with self._own.open("rb") as file:
            arrived = await self._checkpoints.receive(file, self._own.suffix)
        try:
            await self._checkpoints.keep(arrived)
        finally:
            await self._checkpoints.discard(arrived)
        return arrived.name

    async def _tell(self, active: ActiveModels, answers: bool, reason: str | None) -> None:
        if active.following is not None and (reason is not None or not answers):
            async with self._database.read() as session:
                models = ModelRepository(session)
                _log.warning(
                    "the stored pictures are embedded anew, in the background",
                    reason=reason or "this was begun before",
                    model_id=active.following,
                    embedded=await models.count_embeddings(active.following),
                    total=await models.count_crops(),
                    searches="are answered meanwhile" if answers else "wait until it is done",
                )
        elif self._own_id not in (active.answering, active.following):
            _log.warning(
                f"{active.answering} answers, as the database says, not {self._own_id} of {self._own}; "
                f"`passerby reindex --model {self._own}` lets that one answer",
                model_id=active.answering,
            )


async def _has_embedded_all(session: AsyncSession, model_id: str) -> bool:
    return not await ReindexRepository(session).unembedded(model_id, 0, 1)
