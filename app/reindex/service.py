"""The rules of changing the model: which checkpoint can take over, how far it is, how it is given up."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from app.database import Database
from app.embedding.engine import EngineError, Engines
from app.embedding.worker import outcomes_of
from app.errors import Conflict, InvalidRequest, NotFound
from app.gallery.answering import Answering
from app.gallery.model_repository import ModelRepository
from app.gallery.tables import ANSWERS, DROPPED, KEPT, NEXT, KnownModel
from app.reindex.checkpoints import Arrived, CheckpointStore
from app.reindex.repository import ReindexRepository
from app.reindex.worker import ReindexWorker, too_many
from model.errors import CheckpointError

_LISTED = 100


class CheckpointReader(Protocol):
    """What can open a checkpoint."""

    async def engines(self, path: Path) -> Engines:
        """Engines that have proved that they compute rightly. Raises EngineError, CheckpointError."""


@dataclass(frozen=True)
class Progress:
    """How far the change is; `following` is the model that is to take over, if there is one.

    answering: None where no model has embedded all crops; done, unreadable, listed: of the model that is to take over,
    or else of the one that answers; held: whether it goes on only when somebody says so.
    """

    answering: KnownModel | None
    following: KnownModel | None
    done: int
    total: int
    unreadable: int
    listed: list[tuple[str, str]]
    dropping: list[str]
    trouble: str | None
    held: bool


class ReindexService:
    """Begins, tells and gives up a change of the model. The work itself is the worker's."""

    def __init__(
        self,
        database: Database,
        checkpoints: CheckpointStore,
        answering: Answering,
        worker: ReindexWorker,
        reader: CheckpointReader,
    ) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._answering = answering
        self._worker = worker
        self._reader = reader

    async def begin(self, content: BinaryIO, filename: str, lossy: bool) -> Progress:
        """Let the model of a checkpoint take over once all crops are embedded with it.

        Where that is under way already, pictures that could not be read are tried again. One that should answer, but
        whose checkpoint was lost, answers again at once. Raises InvalidRequest where the file is no checkpoint that
        this service can use, Conflict where its model answers or another one is to take over.
        """
        arrived = await self._checkpoints.receive(content, Path(filename).suffix.lower())
        try:
            model_id = await self._check(arrived, filename)
            async with self._database.read() as session:
                await self._refuse(ModelRepository(session), model_id)
            await self._checkpoints.keep(arrived)
        finally:
            await self._checkpoints.discard(arrived)
        return await self._begin(model_id, arrived.name, lossy)

    async def begin_again(self, model_id: str, lossy: bool) -> Progress:
        """Let a model take over whose checkpoint is kept, as it answered before. Raises NotFound, Conflict."""
        async with self._database.read() as session:
            model = await ModelRepository(session).model(model_id)
        if model is None:
            raise NotFound(f"there is no model {model_id}: give its checkpoint's file")
        return await self._begin(model_id, model.checkpoint, lossy)

    async def progress(self) -> Progress:
        """How far it is."""
        async with self._database.read() as session:
            models, crops = ModelRepository(session), ReindexRepository(session)
            answering, following = await models.model_that(ANSWERS), await models.model_that(NEXT)
            model = following or answering
            if model is None:
                raise NotFound("no model answers: the database is not that of a gallery")
            total, unreadable = await models.count_crops(), await crops.count_unreadable(model.model_id)
            asked_for = await self._worker.asked_for(session)
            return Progress(
                answering=answering,
                following=following,
                done=await models.count_embeddings(model.model_id),
                total=total,
                unreadable=unreadable,
                listed=await crops.unreadable(model.model_id, _LISTED),
                dropping=[one.model_id for one in await models.models_that(DROPPED)],
                trouble=self._answering.next_trouble or (None if following is None else following.trouble),
                held=model is following and not model.lossy and too_many(unreadable, total, asked_for),
            )

    async def give_up(self) -> None:
        """Let the model that was to take over not do so; its embeddings are deleted. Raises NotFound, Conflict."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            following = await models.model_that(NEXT)
            if following is None:
                raise NotFound("no model is to take over: nothing is under way")
            self._refuse_to_drop(following)
            await models.drop(following.model_id)
        self._worker.wake()

    async def drop(self, model_id: str) -> None:
        """Delete the embeddings of a model that answers no more. Raises NotFound, Conflict."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            model = await models.model(model_id)
            if model is not None:
                self._refuse_to_drop(model)
                await models.drop(model_id)
            elif await models.count_embeddings(model_id):  # by a version that did not note its models
                await models.put_model(model_id, "", DROPPED)
            else:
                raise NotFound(f"there is no model {model_id}")
        self._worker.wake()

    def _refuse_to_drop(self, model: KnownModel) -> None:
        if model.state == ANSWERS:
            raise Conflict(f"{model.model_id} answers: let another model answer first, with `passerby reindex`")
        if model.state == NEXT and not self._answering.ready:
            raise Conflict(
                f"no other model answers than {model.model_id} will: let another one take its place, with "
                "`passerby reindex`"
            )

    async def _check(self, arrived: Arrived, filename: str) -> str:
        """The id of a checkpoint's model, which has embedded a blank crop. Raises InvalidRequest."""
        try:
            engines = await self._reader.engines(arrived.path)
            blank = np.zeros((1, *engines.metadata.input.size, 3), dtype=np.uint8)
            (outcome,) = outcomes_of(engines.workers[0], blank)
            if isinstance(outcome, EngineError):
                raise outcome
        except (EngineError, CheckpointError) as error:
            told = str(error).replace(str(arrived.path), filename)
            raise InvalidRequest(f"this checkpoint cannot be used: {told}", "checkpoint") from error
        return engines.metadata.model_id

    async def _begin(self, model_id: str, checkpoint: str, lossy: bool) -> Progress:
        async with self._database.write() as session:
            models = ModelRepository(session)
            await self._refuse(models, model_id)
            model, following = await models.model(model_id), await models.model_that(NEXT)
            found_again = model is not None and model.state == ANSWERS
            if model is not None and found_again:
                await models.put_model(model_id, checkpoint, ANSWERS, model.lossy)
            else:
                if following is not None and following.model_id != model_id:
                    await models.put_model(following.model_id, following.checkpoint, KEPT)
                await models.put_model(model_id, checkpoint, NEXT, lossy)
                await ReindexRepository(session).forget_unreadable(model_id)
        if found_again:
            await self._answering.refresh()
        self._worker.wake()
        return await self.progress()

    async def _refuse(self, models: ModelRepository, model_id: str) -> None:
        """Raise Conflict where a model cannot take over now."""
        model, following = await models.model(model_id), await models.model_that(NEXT)
        if model is not None and model.state == ANSWERS and self._answering.now.id == model_id:
            raise Conflict(f"{model_id} answers already: there is nothing to do")
        if model is not None and model.state == DROPPED:
            raise Conflict(f"the embeddings of {model_id} are being deleted: wait until GET /reindex names it no more")
        if following is not None and following.model_id != model_id and self._answering.ready:
            raise Conflict(
                f"{following.model_id} is about to take over: wait, or give that up first with DELETE /reindex"
            )
