"""Embeds stored crops with the next model in the background, activates it, and deletes dropped models."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.embedding.background import BackgroundEmbedder
from app.embedding.decoding import PictureError
from app.embedding.queue import Priority
from app.embedding.service import EmbeddedCrop
from app.errors import NotReady
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository
from app.models.active import ActiveModel, RunningModel
from app.models.checkpoints import CheckpointStore
from app.models.repository import ModelRepository, Unembedded
from app.models.tables import DROPPED, NEXT, KnownModel
from model.checkpoint import SUPERSEDED

CROPS_AT_ONCE = 32
"""In one step. A kill loses at most one step, and a cancellation waits for at most one."""

LAST_CROPS = 8
"""Crops that may be left at the switch. They are embedded under the lock that serialises writers."""

FEW_UNREADABLE, SHARE_UNREADABLE = 10, 0.01
"""Number and share of pictures that may be unreadable at the switch: more of them look like a missing disk."""

_DROPPED_AT_ONCE = 1_000  # in one transaction, for which other writers wait
_TRIMMED_AT_ONCE = 5_000
_LOG_SECONDS = 10.0  # between two log lines with the progress
_LONGEST_PAUSE = 60.0  # seconds before a retry

_log = structlog.get_logger()


def too_many_unreadable(unreadable: int, crops: int, requested: bool) -> bool:
    """Whether so many pictures are unreadable that the switch is blocked until an operator allows it.

    requested: whether an operator may have requested the switch; an automatic one must not lose all crops of a gallery.
    """
    return unreadable > max(FEW_UNREADABLE, SHARE_UNREADABLE * crops) or (unreadable == crops > 0 and not requested)


@dataclass(frozen=True)
class _Outcomes:
    """The outcomes of crops, by key: embeddings `(2048,)`, or the reasons why there are none."""

    vectors: Mapping[int, NDArray[np.float32]]
    problems: Mapping[int, str]


class ReindexWorker:
    """Does the pending work that the database shows, in one process at a time, and resumes work of other processes.

    No progress is stored: the pending crops are those without an embedding of the next model.
    """

    def __init__(
        self,
        database: Database,
        images: ImageStore,
        active_model: ActiveModel,
        checkpoints: CheckpointStore,
        in_background: Callable[[Path], BackgroundEmbedder],
        poll_seconds: float = 1.0,
    ) -> None:
        """in_background: a process that embeds with a checkpoint; poll_seconds: pause between polls of the database."""
        self._database = database
        self._images = images
        self._active_model = active_model
        self._checkpoints = checkpoints
        self._in_background = in_background
        self._embedder: BackgroundEmbedder | None = None
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._log_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start polling for work."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the running transaction, and kill the process: its crops are left to the next service."""
        self._stopped.set()
        if self._embedder is not None:
            self._embedder.kill()
        self._woken.set()
        if self._task is not None:
            await self._task

    def wake(self) -> None:
        """Poll for work now."""
        self._woken.set()

    async def _run(self) -> None:
        pause = self._poll_seconds
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._poll()
                pause = self._poll_seconds
            except Exception as error:
                if self._stopped.is_set():  # `stop` has killed the process
                    return
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)
                _log.error("reindexing failed and is retried", seconds=pause, exc_info=error)
                with suppress(Exception):  # the database may have failed
                    await self._store_failure(error)

    async def _store_failure(self, error: Exception) -> None:
        async with self._database.write() as session:
            repository = ModelRepository(session)
            for model in (await repository.model_in(NEXT), *await repository.models_in(DROPPED)):
                if model is not None:
                    await repository.set_progress(model.model_id, None, f"{type(error).__name__}: {error}")

    async def _poll(self) -> None:
        async with self._database.read() as session:
            repository = ModelRepository(session)
            next_model, dropped = await repository.model_in(NEXT), await repository.models_in(DROPPED)
            if next_model is not None and await self._waits_for_operator(session, next_model):
                next_model = None
        running = None if next_model is None else await self._running(next_model)
        if running is None and not dropped:
            return
        async with self._database.try_lock() as locked:
            if not locked:
                return
            for model in dropped:
                await self._drop(model)
            if next_model is not None and running is not None:
                await self._embed_and_activate(next_model, running)

    async def _running(self, model: KnownModel) -> RunningModel | None:
        """The next model as it runs here; None where it cannot be loaded: then another process does the work."""
        active = self._active_model
        if active.current.id != model.model_id and active.next is None and active.next_trouble is None:
            with suppress(NotReady):  # the active model may be lost; the next one can be loaded all the same
                await active.refresh()
        loaded = (candidate for candidate in (active.current, active.next) if candidate is not None)
        return next((candidate for candidate in loaded if candidate.id == model.model_id), None)

    # embedding

    async def _embed_and_activate(self, model: KnownModel, running: RunningModel) -> None:
        """Embed all pending crops, then activate the model."""
        if await self._activate(model, running):
            return
        path = await self._checkpoints.path(model.checkpoint)
        if self._stopped.is_set():
            return
        self._embedder = self._in_background(path)
        async with self._embedder as embedder:
            await self._log_progress(model)
            while not self._stopped.is_set():
                if not await self._embed_all(model, embedder) or await self._activate(model, running):
                    return

    async def _embed_all(self, model: KnownModel, embedder: BackgroundEmbedder) -> bool:
        """Embed the pending crops by key, except for a few last ones; False where the model must not go on."""
        key = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            async with self._database.read() as session:
                crops = await ModelRepository(session).unembedded(model.model_id, key, CROPS_AT_ONCE)
            if len(crops) <= (LAST_CROPS if key else 0):
                return True
            outcomes = await self._embed(crops, embedder)
            if not await self._store(model, outcomes, len(crops) / (time.monotonic() - began)):
                return False
            key = crops[-1].key
        return False

    async def _embed(self, crops: Sequence[Unembedded], embedder: BackgroundEmbedder) -> _Outcomes:
        contents, problems = await self._read(crops)
        outcomes = await embedder.embed(list(contents.values())) if contents else []
        embedded = dict(zip(contents, outcomes, strict=True))
        vectors = {key: outcome.reshape(-1) for key, outcome in embedded.items() if not isinstance(outcome, str)}
        problems |= {key: outcome for key, outcome in embedded.items() if isinstance(outcome, str)}
        return _Outcomes(vectors, problems)

    async def _read(self, crops: Sequence[Unembedded]) -> tuple[dict[int, bytes], dict[int, str]]:
        """The pictures by crop key, and the problems of those that have no file."""
        contents = await asyncio.gather(*(self._images.read(crop.image_sha256) for crop in crops))
        read = dict(zip((crop.key for crop in crops), contents, strict=True))
        missing = {key: "its picture is gone" for key, content in read.items() if content is None}
        return {key: content for key, content in read.items() if content is not None}, missing

    async def _store(self, model: KnownModel, outcomes: _Outcomes, crops_per_second: float) -> bool:
        """Store the outcomes; False where the model is no longer the next one, or must not go on."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            next_model = await models.model_in(NEXT)  # an operator may have changed it while the crops were embedded
            if next_model is None or next_model.model_id != model.model_id:
                return False
            await _insert(ModelRepository(session), GalleryRepository(session), model.model_id, outcomes)
            if outcomes.problems and await self._block_if_unreadable(session, next_model):
                return False
            await models.set_progress(model.model_id, crops_per_second, None)
        if time.monotonic() >= self._log_at:
            await self._log_progress(model)
        return True

    async def _log_progress(self, model: KnownModel) -> None:
        async with self._database.read() as session:
            repository = ModelRepository(session)
            embedded, crops = await repository.count_embeddings(model.model_id), await repository.count_crops()
        _log.info("crops are being embedded", model_id=model.model_id, embedded=embedded, total=crops)
        self._log_at = time.monotonic() + _LOG_SECONDS

    async def _waits_for_operator(self, session: AsyncSession, model: KnownModel) -> bool:
        """Whether the next model is blocked, and the database says why."""
        return model.trouble is not None and model.trouble == await self._blocking_reason(session, model)

    async def _block_if_unreadable(self, session: AsyncSession, model: KnownModel) -> bool:
        """Whether the switch is blocked until an operator allows it; logs and stores the reason.

        model: the next one, as it is in this writing unit of work, so that no operator's request is overwritten.
        """
        reason = await self._blocking_reason(session, model)
        if reason is not None and reason != model.trouble:
            _log.error("reindexing is blocked", model_id=model.model_id, reason=reason)
            await ModelRepository(session).set_progress(model.model_id, None, reason)
        return reason is not None

    async def _blocking_reason(self, session: AsyncSession, model: KnownModel) -> str | None:
        """Why a model must not become active unless an operator allows it; None where it may."""
        if model.allow_missing:
            return None
        unreadable = await ModelRepository(session).count_unreadable(model.model_id)
        crops = await ModelRepository(session).count_crops()
        if not too_many_unreadable(unreadable, crops, await self.is_requested(session)):
            return None
        command = f"passerby reindex --model {model.model_id}"
        return (
            f"{unreadable:,} of {crops:,} crops cannot be embedded, which is too many to lose by default: check "
            f"that the image store is complete, then start the reindex again with `{command}`; or go on without them, "
            f"with `{command} --allow-missing`"
        )

    async def is_requested(self, session: AsyncSession) -> bool:
        """Whether an operator may have requested the switch; False where it certainly began automatically."""
        active_id = (await ModelRepository(session).roles()).active_id
        return self._active_model.ready and active_id not in SUPERSEDED

    # the switch

    async def _activate(self, model: KnownModel, running: RunningModel) -> bool:
        """Make the next model the active one; False where more than LAST_CROPS crops are still pending."""
        await running.index.catch_up()  # so the index has little to apply after the switch
        async with self._database.write() as session:  # no other writer stores a crop from here on
            gallery, repository = GalleryRepository(session), ModelRepository(session)
            models = ModelRepository(session)
            next_model = await models.model_in(NEXT)
            if next_model is None or next_model.model_id != model.model_id:
                return True
            if await self._block_if_unreadable(session, next_model):
                return True
            crops = await repository.unembedded(model.model_id, 0, LAST_CROPS + 1)
            if len(crops) > LAST_CROPS:
                return False
            outcomes = await self._embed_last(crops, running)
            if outcomes is None:
                return False
            await _insert(repository, gallery, model.model_id, outcomes)
            if await self._block_if_unreadable(session, next_model):
                return True
            await models.activate(model.model_id)
        unreadable = await self._unreadable(model)
        _log.warning("all crops are embedded", model_id=model.model_id, unreadable=unreadable)
        await self._active_model.refresh()
        return True

    async def _embed_last(self, crops: Sequence[Unembedded], running: RunningModel) -> _Outcomes | None:
        """Embed with the service's own engines, which are fast, as all writers wait; None where the engines fail."""
        contents, problems = await self._read(crops)
        results = dict(
            zip(contents, await running.embedding.embed(list(contents.values()), Priority.SEARCH), strict=True)
        )
        vectors = {key: crop.parts.reshape(-1) for key, crop in results.items() if isinstance(crop, EmbeddedCrop)}
        problems |= {key: str(error) for key, error in results.items() if isinstance(error, PictureError)}
        return _Outcomes(vectors, problems) if len(vectors) + len(problems) == len(crops) else None

    async def _unreadable(self, model: KnownModel) -> int:
        async with self._database.read() as session:
            return await ModelRepository(session).count_unreadable(model.model_id)

    # dropping a model

    async def _drop(self, model: KnownModel) -> None:
        """Delete a model's embeddings and changes, then its row and its checkpoint."""
        model_id = model.model_id
        while not self._stopped.is_set():
            async with self._database.write() as session:
                if not await _is_dropped(session, model_id):
                    return
                if not await ModelRepository(session).drop_embeddings(model_id, _DROPPED_AT_ONCE):
                    break
        while not self._stopped.is_set():
            async with self._database.write() as session:
                if not await _is_dropped(session, model_id):
                    return
                repository = GalleryRepository(session)
                oldest = await repository.oldest_changes(model_id, 0, _TRIMMED_AT_ONCE)
                if oldest is None:
                    await ModelRepository(session).remove_unreadable(model_id)
                    await ModelRepository(session).remove(model_id)
                    break
                await repository.trim_changes(model_id, oldest)
        else:
            return
        if model.checkpoint:
            await self._checkpoints.delete(model.checkpoint)


async def _is_dropped(session: AsyncSession, model_id: str) -> bool:
    """Whether a model is still marked as dropped: a service that found no other model may have made it the next one."""
    model = await ModelRepository(session).model(model_id)
    return model is not None and model.state == DROPPED


async def _insert(repository: ModelRepository, gallery: GalleryRepository, model_id: str, outcomes: _Outcomes) -> None:
    """Insert outcomes within a writing unit of work, without crops that were deleted or embedded since."""
    pending = await repository.still_unembedded(model_id, [*outcomes.vectors, *outcomes.problems])
    vectors = {key: vector for key, vector in outcomes.vectors.items() if key in pending}
    await gallery.add_embeddings(vectors, model_id)
    problems = {key: problem for key, problem in outcomes.problems.items() if key in pending}
    await repository.add_unreadable(model_id, problems)
