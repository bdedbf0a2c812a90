"""Loads models: checkpoint, engines, embedding service, and the index of the model's embeddings."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from app.database import Database
from app.embedding.background import BackgroundEmbedder
from app.embedding.engine import Engines, load_engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.service import EmbeddingService
from app.embedding.start_up import best_batch_size, check
from app.index.sync import IndexSync
from app.models.active import RunningModel
from app.models.checkpoints import CheckpointStore
from app.models.repository import ModelRepository
from app.models.start import StartupModel
from app.settings import Settings
from model.decoding import PictureLimits
from model.errors import CheckpointError

MAX_TRIAL_BYTES = 2 * 1024**3
"""Three times the 0.7 GB that MGN on ResNet-50 takes with ONNX Runtime for a crop."""

_log = structlog.get_logger()


class ModelLoader:
    """Loads models by id, with the engines of the settings.

    The database names the active model. The configured checkpoint becomes active in a new gallery, and the next model
    where no usable model has embedded all crops (`StartupModel`). Otherwise it is only a local copy of its model.
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
        """new_index: makes the index of a model, by the model's id."""
        self._settings = settings
        self._database = database
        self._checkpoints = checkpoints
        self._limits = limits
        self._metrics = metrics
        self._new_index = new_index
        self._configured_id: str | None = None

    async def start(self, configured: Engines | None) -> RunningModel:
        """Run the active model or, where none is active, the next one.

        configured: the engines of the configured checkpoint, if they are loaded already.
        Raises EngineError, CheckpointError, and what the database raises.
        """
        path = self._settings.resolved_checkpoint
        if configured is None:
            configured = await self._load(path)
        self._configured_id = configured.metadata.model_id
        model_id = await StartupModel(self._database, self._checkpoints, self._configured_id, path).resolve()
        return await (self._run(configured) if model_id == self._configured_id else self.load(model_id))

    async def load(self, model_id: str) -> RunningModel:
        """Run a model of the database. Raises EngineError, CheckpointError, and what the database raises."""
        if model_id == self._configured_id:
            configured = await self._load(self._settings.resolved_checkpoint)
            if configured.metadata.model_id == model_id:  # the file may have been replaced since the start
                return await self._run(configured)
        return await self._run(await self._load(await self._path(model_id)))

    async def _load(self, path: Path) -> Engines:
        """A checkpoint's engines, after the check of the reference embeddings. Raises EngineError, CheckpointError."""
        return await asyncio.to_thread(self._engines, path)

    def in_background(self, checkpoint: Path) -> BackgroundEmbedder:
        """A process that embeds with a checkpoint, at low priority."""
        return BackgroundEmbedder(checkpoint, self._settings.engine, self._settings.threads, self._limits)

    def on_trial(self, checkpoint: Path) -> BackgroundEmbedder:
        """A process that tries a checkpoint which nobody has tried yet.

        An ONNX file may compute anything, so its memory is limited.
        """
        max_bytes = MAX_TRIAL_BYTES if checkpoint.suffix == ".onnx" else None
        return BackgroundEmbedder(checkpoint, self._settings.engine, self._settings.threads, self._limits, 0, max_bytes)

    def _engines(self, path: Path) -> Engines:
        engines = load_engines(path, self._settings.engine, self._settings.threads)
        for engine in engines.distinct:
            check(engine)
        _log.info("a model was loaded", model_id=engines.metadata.model_id, runs_on=engines.runs_on)
        return engines

    async def _path(self, model_id: str) -> Path:
        async with self._database.read() as session:
            model = await ModelRepository(session).model(model_id)
        if model is None:
            raise CheckpointError(f"no checkpoint of {model_id} is stored")
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
        index = await self._new_index(engines.metadata.model_id)
        try:
            await embedding.start()
            await index.start()
        except BaseException:
            await embedding.stop()
            await index.stop()
            raise
        return RunningModel(embedding, index)
