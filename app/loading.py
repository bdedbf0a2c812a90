"""Which model a service starts with, and how one is loaded: checkpoint, engines, and the index of its embeddings."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from app.database import Database
from app.embedding.background import BackgroundEmbedder
from app.embedding.decoding import PictureLimits
from app.embedding.engine import Engines, load_engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.service import EmbeddingService
from app.embedding.start_up import best_batch_size, check
from app.gallery.answering import RunningModel
from app.gallery.model_repository import ModelRepository
from app.index.sync import IndexSync
from app.reindex.checkpoints import CheckpointStore
from app.reindex.succession import Succession
from app.settings import Settings
from model.errors import CheckpointError


class ModelLoader:
    """Loads models by their ids, with engines as the settings say.

    The database says which model answers. The settings' checkpoint does so where nothing has answered yet, and takes
    over where nothing answers that finds all crops; otherwise it only serves as this service's own form of the model
    that it holds.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        checkpoints: CheckpointStore,
        limits: PictureLimits,
        metrics: EmbeddingMetrics,
        new_index: Callable[[str], Awaitable[IndexSync]],
    ) -> None:
        """new_index: makes what keeps the index of a model, by its id."""
        self._settings = settings
        self._database = database
        self._checkpoints = checkpoints
        self._limits = limits
        self._metrics = metrics
        self._new_index = new_index
        self._own_id: str | None = None

    async def start(self, own: Engines | None) -> RunningModel:
        """The model that answers or, where none does, the one that is to, running.

        own: the engines of the settings' checkpoint, where they are loaded already.
        Raises EngineError, CheckpointError, and what the database raises.
        """
        path = self._settings.resolved_checkpoint
        if own is None:
            own = await self.engines(path)
        self._own_id = own.metadata.model_id
        running = await Succession(self._database, self._checkpoints, self._own_id, path).settle()
        return await (self._run(own) if running == self._own_id else self.load(running))

    async def load(self, model_id: str) -> RunningModel:
        """Any model that is known, running. Raises EngineError, CheckpointError, and what the database raises."""
        if model_id == self._own_id:
            own = await self.engines(self._settings.resolved_checkpoint)
            if own.metadata.model_id == model_id:  # else another file has taken its place since
                return await self._run(own)
        return await self._run(await self.engines(await self._path(model_id)))

    async def engines(self, path: Path) -> Engines:
        """A checkpoint's engines, which have proved that they compute rightly. Raises EngineError, CheckpointError."""
        return await asyncio.to_thread(self._engines, path)

    def in_background(self, checkpoint: Path) -> BackgroundEmbedder:
        """What embeds with a checkpoint in the background."""
        return BackgroundEmbedder(checkpoint, self._settings.engine, self._settings.threads, self._limits)

    def _engines(self, path: Path) -> Engines:
        engines = load_engines(path, self._settings.engine, self._settings.threads)
        for engine in engines.different:
            check(engine)
        log = structlog.get_logger()
        log.info("a model was loaded", model_id=engines.metadata.model_id, runs_on=engines.runs_on)
        return engines

    async def _path(self, model_id: str) -> Path:
        async with self._database.read() as session:
            model = await ModelRepository(session).model(model_id)
        if model is None:
            raise CheckpointError(f"no checkpoint of {model_id} is kept")
        return await self._checkpoints.path(model.checkpoint)

    async def _run(self, engines: Engines) -> RunningModel:
        batch = self._settings.batch_size
        if batch is None:
            batch = await asyncio.to_thread(best_batch_size, engines.workers[0])
        embedding = EmbeddingService(
            engines,
            self._limits,
            self._metrics,
            batch,
            self._settings.queue_capacity,
            stall_seconds=self._settings.stall_seconds,
        )
        await embedding.start()
        index = await self._new_index(engines.metadata.model_id)
        try:
            await index.start()
        except BaseException:
            await embedding.stop()
            await index.stop()
            raise
        return RunningModel(embedding, index)
