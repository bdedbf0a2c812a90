"""Decides at start which model a service runs, and begins a reindex where no usable model has embedded all crops."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.database import Database
from app.models.checkpoints import CheckpointLost, CheckpointStore
from app.models.repository import ModelRepository, ModelRoles
from app.models.tables import ACTIVE, KEPT, NEXT, KnownModel
from model.checkpoint import SUPERSEDED

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Plan:
    """The roles that the models should have, and the reason where the roles change.

    retry_unreadable: whether pictures that could not be read are tried again.
    """

    roles: ModelRoles
    reason: str | None
    retry_unreadable: bool


class StartupModel:
    """Decides which model a service runs when it starts.

    A reindex with the configured checkpoint begins where no model is active that has embedded all crops: because the
    database was written by a version that did not store the active model, because crops lack its embeddings, or because
    its checkpoint is lost. It also begins where the active model shipped with an earlier version; that model stays
    active until the next one is complete.
    """

    def __init__(
        self, database: Database, checkpoints: CheckpointStore, configured_id: str, configured_path: Path
    ) -> None:
        """configured_id, configured_path: the model and the checkpoint file of the service's settings."""
        self._database = database
        self._checkpoints = checkpoints
        self._configured_id = configured_id
        self._configured_path = configured_path

    async def resolve(self) -> str:
        """The id of the model to run, after the roles in the database were updated."""
        async with self._database.read() as session:
            models = ModelRepository(session)
            candidates = [await models.model_in(ACTIVE), await models.model_in(NEXT)]
        lost = {model.model_id for model in candidates if model is not None and await self._is_lost(model)}
        async with self._database.read() as session:
            models = ModelRepository(session)
            roles, plan = await models.roles(), await self._plan(models, lost)
        if plan is not None:
            checkpoint = await self._store_configured()
            async with self._database.write() as session:
                models = ModelRepository(session)
                plan = await self._plan(models, lost)  # another service may have applied it already
                if plan is not None:
                    await self._apply(models, plan, checkpoint, lost)
                roles = await models.roles()
        active_id = roles.active_id
        can_run = active_id is not None and self._can_run(active_id, lost)
        await self._log_roles(roles, can_run, None if plan is None else plan.reason)
        return str(active_id if can_run else roles.next_id)

    async def _plan(self, models: ModelRepository, lost: Collection[str]) -> _Plan | None:
        """The changes to make; None where there are none."""
        roles = await models.roles()
        target, reason = await self._target(models, roles, lost)
        next_model = None if target.next_id is None else await models.model(target.next_id)
        is_blocked = next_model is not None and next_model.trouble is not None
        retry = is_blocked and (target.active_id is None or not self._can_run(target.active_id, lost))
        if target == roles and not retry and self._configured_id not in lost:
            return None
        return _Plan(target, reason if target != roles else None, retry)

    async def _target(
        self, models: ModelRepository, roles: ModelRoles, lost: Collection[str]
    ) -> tuple[ModelRoles, str | None]:
        """The roles that the models should have, and why."""
        active_id, next_id = roles.active_id, roles.next_id
        usable_next = next_id if next_id is not None and self._can_run(next_id, lost) else None
        if active_id is None:
            if next_id is None and await models.has_embedded_all(self._configured_id):  # also an empty gallery
                return ModelRoles(self._configured_id, None), None
            return ModelRoles(None, usable_next or self._configured_id), "no model is known to have embedded all crops"
        can_run, is_superseded = self._can_run(active_id, lost), await self._is_superseded(models, active_id)
        if not await models.has_embedded_all(active_id):
            successor = active_id if can_run and not is_superseded else self._configured_id
            return ModelRoles(None, usable_next or successor), f"{active_id} has not embedded all crops"
        if not can_run:
            return ModelRoles(active_id, usable_next or self._configured_id), f"the checkpoint of {active_id} is lost"
        if is_superseded:
            return ModelRoles(active_id, next_id or self._configured_id), f"{active_id} shipped with an earlier version"
        return roles, None

    def _can_run(self, model_id: str, lost: Collection[str]) -> bool:
        return model_id == self._configured_id or model_id not in lost

    async def _is_superseded(self, models: ModelRepository, active_id: str) -> bool:
        """Whether the configured model should replace the active one.

        False where the database knows the configured model: then an operator has gone back to the active one.
        """
        if active_id not in SUPERSEDED or active_id == self._configured_id:
            return False
        return await models.model(self._configured_id) is None

    async def _apply(self, models: ModelRepository, plan: _Plan, checkpoint: str, lost: Collection[str]) -> None:
        states = {model_id: state for state, model_id in ((ACTIVE, plan.roles.active_id), (NEXT, plan.roles.next_id))}
        for state in (ACTIVE, NEXT):
            model = await models.model_in(state)
            if model is not None and states.get(model.model_id) != state:
                await models.upsert_model(model.model_id, model.checkpoint, KEPT, model.allow_missing)
        for model_id, state in states.items():
            if model_id is not None:
                await self._put(models, model_id, state, checkpoint, lost)
        if plan.retry_unreadable and plan.roles.next_id is not None:
            await models.remove_unreadable(plan.roles.next_id)
            await models.set_progress(plan.roles.next_id, None, None)

    async def _put(
        self, models: ModelRepository, model_id: str, state: str, checkpoint: str, lost: Collection[str]
    ) -> None:
        """Store a model's state; checkpoint: the name of the configured checkpoint in the store."""
        is_configured, model = model_id == self._configured_id, await models.model(model_id)
        if model is None:
            await models.upsert_model(model_id, checkpoint, state)
        elif model.state != state or (is_configured and model_id in lost):
            name = checkpoint if is_configured else model.checkpoint
            await models.upsert_model(model_id, name, state, model.allow_missing)

    async def _is_lost(self, model: KnownModel) -> bool:
        if model.model_id == self._configured_id and model.state == ACTIVE:
            return False  # it runs from the configured file
        try:
            await self._checkpoints.path(model.checkpoint)
        except CheckpointLost as error:
            _log.warning("a checkpoint is lost", model_id=model.model_id, error=str(error))
            return True
        return False

    async def _store_configured(self) -> str:
        """Put the configured checkpoint into the store that all services share; its name there."""
        path = self._configured_path
        with path.open("rb") as file:
            async with self._checkpoints.received(file, path.suffix) as received:
                await self._checkpoints.keep(received)
                return received.name

    async def _log_roles(self, roles: ModelRoles, active_runs: bool, reason: str | None) -> None:
        if roles.next_id is not None and (reason is not None or not active_runs):
            async with self._database.read() as session:
                progress = await ModelRepository(session).progress(roles.next_id)
            _log.warning(
                "the stored pictures are embedded again, in the background",
                reason=reason or "a reindex was begun before",
                model_id=roles.next_id,
                embedded=progress.embedded,
                total=progress.total,
                searches="active model" if active_runs else "refused",
            )
        elif self._configured_id not in (roles.active_id, roles.next_id):
            _log.warning(
                "the configured checkpoint is not the active model; `passerby reindex` switches to it",
                active=roles.active_id,
                configured=self._configured_id,
                checkpoint=str(self._configured_path),
            )
