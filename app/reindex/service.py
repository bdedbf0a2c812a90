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
from app.gallery.tables import ANSWERS, DROPPED, NEXT, KnownModel
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

    done, unreadable, listed: of that model, or else of the one that answers.
    """

    answering: KnownModel
    following: KnownModel | None
    done: int
    total: int
    unreadable: int
    listed: list[tuple[str, str]]
    dropping: list[str]
    trouble: str | None

    @property
    def held(self) -> bool:
        """Whether it goes on only when somebody says so."""
        following = self.following
        return following is not None and not following.lossy and too_many(self.unreadable, self.total)


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

        Where that is under way already, pictures that could not be read are tried again. Raises InvalidRequest where
        the file is no checkpoint that this service can use, Conflict where its model answers or another one is to take
        over.
        """
        arrived = await self._checkpoints.receive(content, Path(filename).suffix.lower())
        try:
            model_id = await self._check(arrived, filename)
            await self._refuse(model_id)
            await self._checkpoints.keep(arrived)
        finally:
            await self._checkpoints.discard(arrived)
        return await self._begin(model_id, arrived.name, lossy)

    async def begin_again(self, model_id: str, lossy: bool) -> Progress:
        """Let a model take over whose checkpoint is kept, as it answered before. Raises NotFound, Conflict."""
        async with self._database.read() as session:
            model = await ReindexRepository(session).model(model_id)
        if model is None:
            raise NotFound(f"there is no model {model_id}: give its checkpoint's file")
        return await self._begin(model_id, model.checkpoint, lossy)

    async def progress(self) -> Progress:
        """How far it is."""
        async with self._database.read() as session:
            repository = ReindexRepository(session)
            answering, following = await repository.model_that(ANSWERS), await repository.model_that(NEXT)
            if answering is None:
                raise NotFound("no model answers: the database is not that of a gallery")
            model_id = (following or answering).model_id
            return Progress(
                answering=answering,
                following=following,
                done=await repository.count_embeddings(model_id),
                total=await repository.count_crops(),
                unreadable=await repository.count_unreadable(model_id),
                listed=await repository.unreadable(model_id, _LISTED),
                dropping=[model.model_id for model in await repository.models_that(DROPPED)],
                trouble=self._answering.next_trouble or (None if following is None else following.trouble),
            )

    async def give_up(self) -> None:
        """Let the model that was to take over not do so; its embeddings are deleted. Raises NotFound."""
        async with self._database.write() as session:
            repository = ReindexRepository(session)
            following = await repository.model_that(NEXT)
            if following is None:
                raise NotFound("no model is to take over: nothing is under way")
            await repository.drop(following.model_id)
        self._worker.wake()

    async def drop(self, model_id: str) -> None:
        """Delete the embeddings of a model that answers no more. Raises NotFound, Conflict."""
        async with self._database.write() as session:
            repository = ReindexRepository(session)
            model = await repository.model(model_id)
            if model is None:
                raise NotFound(f"there is no model {model_id}")
            if model.state == ANSWERS:
                raise Conflict(f"{model_id} answers: let another model answer first, with `passerby reindex`")
            await repository.drop(model_id)
        self._worker.wake()

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
            repository = ReindexRepository(session)
            await _refuse(repository, model_id)
            await repository.put_model(model_id, checkpoint, NEXT, lossy)
            await repository.forget_unreadable(model_id)
        self._worker.wake()
        return await self.progress()

    async def _refuse(self, model_id: str) -> None:
        async with self._database.read() as session:
            await _refuse(ReindexRepository(session), model_id)


async def _refuse(repository: ReindexRepository, model_id: str) -> None:
    """Raise Conflict where a model cannot take over now."""
    model, following = await repository.model(model_id), await repository.model_that(NEXT)
    if model is not None and model.state == ANSWERS:
        raise Conflict(f"{model_id} answers already: there is nothing to do")
    if model is not None and model.state == DROPPED:
        raise Conflict(f"the embeddings of {model_id} are being deleted: wait until GET /reindex names it no more")
    if following is not None and following.model_id != model_id:
        raise Conflict(f"{following.model_id} is about to take over: wait, or give that up first with DELETE /reindex")
