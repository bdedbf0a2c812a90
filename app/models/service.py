"""The rules of reindexing: begin the switch to another model, report its progress, cancel it."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from app.database import Database
from app.embedding.background import BackgroundEmbedder
from app.embedding.engine import EngineError
from app.errors import Conflict, InvalidRequest, NotFound
from app.kit.names import shown
from app.models.active import ActiveModel
from app.models.checkpoints import CheckpointLost, CheckpointStore
from app.models.repository import ModelRepository
from app.models.rollout import Rollout
from app.models.supervisor import ModelSupervisor
from app.models.tables import ACTIVE, DROPPED, KEPT, NEXT, KnownModel
from model.checkpoint import BUNDLED, CheckpointMetadata, load_checkpoint
from model.errors import CheckpointError
from model.onnx_session import open_session
from model.reference import Reference

_LISTED = 100  # unreadable crops
_CHECK_SECONDS = 60.0  # less than the command line waits for a response
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class ReindexProgress:
    """The active and the next model, and the progress of the next one.

    active: None where no model has embedded all crops; embedded, unreadable, unreadable_crops: of the next model, or of
    the active one where there is no next one; blocked: whether the switch waits for an operator.
    """

    active: KnownModel | None
    next_model: KnownModel | None
    embedded: int
    total: int
    unreadable: int
    unreadable_crops: list[tuple[str, str]]
    dropping: list[str]
    trouble: str | None
    blocked: bool


class ReindexService:
    """Begins, reports and cancels the switch to another model. `Rollout` does the work."""

    def __init__(
        self,
        database: Database,
        checkpoints: CheckpointStore,
        active_model: ActiveModel,
        rollout: Rollout,
        supervisor: ModelSupervisor,
        on_trial: Callable[[Path], BackgroundEmbedder],
    ) -> None:
        """on_trial: a process that tries a checkpoint."""
        self._database = database
        self._checkpoints = checkpoints
        self._active_model = active_model
        self._rollout = rollout
        self._supervisor = supervisor
        self._on_trial = on_trial

    async def begin(self, content: BinaryIO, filename: str, allow_missing: bool) -> ReindexProgress:
        """Switch to the model of a checkpoint once all crops are embedded with it.

        If it is the next model already, unreadable pictures are tried again. If it is the active model, but its
        checkpoint was lost, it runs again at once. Raises InvalidRequest where this service cannot use the file,
        Conflict where its model runs as the active one or another one is next.
        """
        async with self._checkpoints.received(content, Path(filename).suffix.lower()) as received:
            model_id = await self._check(received.path, filename)
            async with self._database.read() as session:
                await self._check_conflicts(ModelRepository(session), model_id)
            await self._checkpoints.keep(received)
        return await self._begin(model_id, received.name, allow_missing)

    async def begin_stored(self, model_id: str, allow_missing: bool) -> ReindexProgress:
        """Switch to a model whose checkpoint is in the store. Raises NotFound, Conflict."""
        async with self._database.read() as session:
            model = await ModelRepository(session).model(model_id)
        if model is None:
            raise NotFound(f"there is no model {model_id}: give its checkpoint's file")
        return await self._begin(model_id, model.checkpoint, allow_missing)

    async def progress(self) -> ReindexProgress:
        """The state of the reindex. Raises NotFound where no model is active or next."""
        async with self._database.read() as session:
            models = ModelRepository(session)
            active, next_model = await models.model_in(ACTIVE), await models.model_in(NEXT)
            model = next_model or active
            if model is None:
                raise NotFound("no model is active or next: the database is not that of a gallery")
            progress = await models.progress(model.model_id)
            return ReindexProgress(
                active=active,
                next_model=next_model,
                embedded=progress.embedded,
                total=progress.total,
                unreadable=await models.count_unreadable(model.model_id),
                unreadable_crops=await models.unreadable(model.model_id, _LISTED),
                dropping=[dropped.model_id for dropped in await models.models_in(DROPPED)],
                trouble=self._active_model.next_trouble or (None if next_model is None else next_model.trouble),
                blocked=model is next_model and await self._rollout.blocking_reason(session, model) is not None,
            )

    async def cancel(self) -> None:
        """Cancel the switch to the next model, and delete its embeddings. Raises NotFound, Conflict."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            next_model = await models.model_in(NEXT)
            if next_model is None:
                raise NotFound("there is no next model: no reindex is running")
            self._check_droppable(next_model)
            await models.drop(next_model.model_id)
        self._supervisor.wake()

    async def drop(self, model_id: str) -> None:
        """Delete the embeddings of a model that is not active. Raises NotFound, Conflict."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            model = await models.model(model_id)
            if model is not None:
                self._check_droppable(model)
                await models.drop(model_id)
            elif await models.count_embeddings(model_id):  # of a version that did not store its models
                await models.upsert_model(model_id, "", DROPPED)
            else:
                raise NotFound(f"there is no model {model_id}")
        self._supervisor.wake()

    def _check_droppable(self, model: KnownModel) -> None:
        """Raise Conflict where a model's embeddings must not be deleted."""
        if model.state == ACTIVE:
            raise Conflict(
                f"{model.model_id} is the active model: switch to another one first, with `passerby reindex`"
            )
        if model.state == NEXT and not self._active_model.ready:
            raise Conflict(
                f"no model is active, and {model.model_id} is the next one: replace it by another one, with "
                "`passerby reindex`"
            )

    async def _check(self, path: Path, filename: str) -> str:
        """The id of a checkpoint's model, after a process of its own has embedded a crop. Raises InvalidRequest."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS), self._on_trial(path) as embedder:
                metadata = embedder.metadata
            await self._check_identity(metadata)
            return metadata.model_id
        except (EngineError, CheckpointError) as error:
            reason = str(error).replace(str(path), filename)
        except TimeoutError:
            reason = f"{filename} has not embedded one crop within {_CHECK_SECONDS:.0f} s"
        raise InvalidRequest(f"this checkpoint cannot be used: {reason}", "checkpoint")

    async def _check_identity(self, metadata: CheckpointMetadata) -> None:
        """Raise CheckpointError where a checkpoint cannot show that it is the model whose id it has.

        Its embeddings of the reference crops are its own, as the trial has shown.
        """
        model_id = metadata.model_id
        if not _MODEL_ID.fullmatch(model_id):
            raise CheckpointError(f"{shown(model_id)} is no id of a model: use letters, digits and ._-")
        if metadata.reference is None:
            raise CheckpointError("it has no reference embeddings; write it again with `python -m model export`")
        known = await self._known_reference(model_id)
        if known is not None and not known.is_of_same_model(metadata.reference):
            raise CheckpointError(f"it claims to be {model_id}, and embeds otherwise than that model")

    async def _known_reference(self, model_id: str) -> Reference | None:
        """The reference embeddings of a model that this service has, or that is bundled."""
        if model_id == self._active_model.current.id:
            return self._active_model.current.embedding.metadata.reference
        for metadata in await asyncio.to_thread(_bundled):
            if metadata.model_id == model_id:
                return metadata.reference
        async with self._database.read() as session:
            model = await ModelRepository(session).model(model_id)
        if model is None or not model.checkpoint:
            return None
        try:
            path = await self._checkpoints.path(model.checkpoint)
        except CheckpointLost:
            return None
        return (await asyncio.to_thread(_metadata_of, path)).reference

    async def _begin(self, model_id: str, checkpoint: str, allow_missing: bool) -> ReindexProgress:
        async with self._database.write() as session:
            models = ModelRepository(session)
            await self._check_conflicts(models, model_id)
            model, next_model = await models.model(model_id), await models.model_in(NEXT)
            restored = model is not None and model.state == ACTIVE  # its checkpoint was lost
            if model is not None and restored:
                await models.upsert_model(model_id, checkpoint, ACTIVE, model.allow_missing)
            else:
                if next_model is not None and next_model.model_id != model_id:
                    await models.upsert_model(next_model.model_id, next_model.checkpoint, KEPT)
                await models.upsert_model(model_id, checkpoint, NEXT, allow_missing)
                await models.remove_unreadable(model_id)
        if restored:
            await self._active_model.refresh()
        self._supervisor.wake()
        return await self.progress()

    async def _check_conflicts(self, models: ModelRepository, model_id: str) -> None:
        """Raise Conflict where a model cannot become the next one now."""
        model, next_model = await models.model(model_id), await models.model_in(NEXT)
        if model is not None and model.state == ACTIVE and self._active_model.current.id == model_id:
            raise Conflict(f"{model_id} is already the active model: there is nothing to do")
        if model is not None and model.state == DROPPED:
            raise Conflict(
                f"the embeddings of {model_id} are being deleted: wait until GET /reindex no longer lists it"
            )
        if next_model is not None and next_model.model_id != model_id and self._active_model.ready:
            raise Conflict(f"{next_model.model_id} is already the next model: wait, or cancel it with DELETE /reindex")


@cache
def _bundled() -> Sequence[CheckpointMetadata]:
    """The metadata of the bundled checkpoints."""
    return [_metadata_of(path) for path in sorted(BUNDLED.parent.glob("*.safetensors"))]


def _metadata_of(path: Path) -> CheckpointMetadata:
    """The metadata of a checkpoint that has been used. Raises CheckpointError."""
    return open_session(path, threads=1)[1] if path.suffix == ".onnx" else load_checkpoint(path).metadata
