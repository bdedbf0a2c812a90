"""The rollout: embeds stored crops with the next model in the background, switches to it, deletes dropped models."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.embedding.background import BackgroundEmbedder, Embedded
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError
from app.embedding.service import EmbeddedCrop
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.images import ImageStore
from app.models.active import ActiveModel, RunningModel
from app.models.checkpoints import CheckpointStore
from app.models.repository import ModelRepository, PendingCrop
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

_log = structlog.get_logger()


class Rollout:
    """Does the pending work that the database shows, in one process at a time, and goes on where another one ended.

    No progress is stored: the pending crops are those without an embedding of the next model.
    """

    def __init__(
        self,
        database: Database,
        images: ImageStore,
        active_model: ActiveModel,
        checkpoints: CheckpointStore,
        in_background: Callable[[Path], BackgroundEmbedder],
    ) -> None:
        """in_background: a process that embeds with a checkpoint."""
        self._database = database
        self._images = images
        self._active_model = active_model
        self._checkpoints = checkpoints
        self._in_background = in_background
        self._embedder: BackgroundEmbedder | None = None
        self._stopped = False
        self._log_at = 0.0

    def stop(self) -> None:
        """Let `work` end after the running transaction, and kill its process, whose crops the next service embeds."""
        self._stopped = True
        if self._embedder is not None:
            self._embedder.kill()

    async def work(self) -> None:
        """Do the pending work: delete dropped models, embed with the next one, switch to it.

        Raises what the database, the image store and the process raise; `work` can then be called again.
        """
        async with self._database.read() as session:
            models = ModelRepository(session)
            next_model, dropped = await models.model_in(NEXT), await models.models_in(DROPPED)
            if next_model is not None and await self._waits_for_operator(session, next_model):
                next_model = None
        # A process in which the next model cannot be loaded leaves the work to another one.
        running = None if next_model is None else self._active_model.loaded(next_model.model_id)
        if running is None and not dropped:
            return
        async with self._database.try_reindex_lock() as locked:
            if not locked:
                return
            for model in dropped:
                await self._drop(model)
            if next_model is not None and running is not None:
                await self._embed_and_activate(next_model, running)

    async def store_failure(self, error: Exception) -> None:
        """Store why `work` failed, with the models that wait for it."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            for model in (await models.model_in(NEXT), *await models.models_in(DROPPED)):
                if model is not None:
                    await models.set_progress(model.model_id, None, f"{type(error).__name__}: {error}")

    # embedding

    async def _embed_and_activate(self, model: KnownModel, running: RunningModel) -> None:
        """Embed all pending crops, then activate the model."""
        if await self._activate(model, running):
            return
        path = await self._checkpoints.path(model.checkpoint)
        if self._stopped:
            return
        self._embedder = self._in_background(path)
        async with self._embedder as embedder:
            await self._log_progress(model)
            while not self._stopped:
                if not await self._embed_all(model, embedder) or await self._activate(model, running):
                    return

    async def _embed_all(self, model: KnownModel, embedder: BackgroundEmbedder) -> bool:
        """Embed the pending crops by key, except for a few last ones; False where the model must not go on."""
        key = 0
        while not self._stopped:
            began = time.monotonic()
            async with self._database.read() as session:
                crops = await ModelRepository(session).pending(model.model_id, key, CROPS_AT_ONCE)
            # The first batch is embedded however small it is: `_activate` may have failed on just these crops.
            if len(crops) <= (LAST_CROPS if key else 0):
                return True
            outcomes = await self._embed(crops, embedder.embed)
            if not await self._store(model, outcomes, len(crops) / (time.monotonic() - began)):
                return False
            key = crops[-1].key
        return False

    async def _embed(
        self, crops: Sequence[PendingCrop], embed: Callable[[Sequence[bytes]], Awaitable[Sequence[Embedded]]]
    ) -> dict[int, Embedded]:
        """The outcomes of crops, by key."""
        contents = await asyncio.gather(*(self._images.read(crop.image_sha256) for crop in crops))
        read = {crop.key: content for crop, content in zip(crops, contents, strict=True) if content is not None}
        embedded = await embed(list(read.values())) if read else []
        return {crop.key: "its picture is gone or damaged" for crop in crops} | dict(zip(read, embedded, strict=True))

    async def _store(self, model: KnownModel, outcomes: Mapping[int, Embedded], crops_per_second: float) -> bool:
        """Store the outcomes; False where the model is no longer the next one, or must not go on."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            next_model = await models.model_in(NEXT)  # an operator may have changed it while the crops were embedded
            if next_model is None or next_model.model_id != model.model_id:
                return False
            problems = await _insert(session, model.model_id, outcomes)
            if problems and await self._block_if_unreadable(session, next_model):
                return False
            await models.set_progress(model.model_id, crops_per_second, None)
        if time.monotonic() >= self._log_at:
            await self._log_progress(model)
        return True

    async def _log_progress(self, model: KnownModel) -> None:
        async with self._database.read() as session:
            progress = await ModelRepository(session).progress(model.model_id)
        _log.info("crops are being embedded", model_id=model.model_id, embedded=progress.embedded, total=progress.total)
        self._log_at = time.monotonic() + _LOG_SECONDS

    async def _waits_for_operator(self, session: AsyncSession, model: KnownModel) -> bool:
        """Whether the next model is blocked, and the database says why."""
        return model.trouble is not None and model.trouble == await self.blocking_reason(session, model)

    async def _block_if_unreadable(self, session: AsyncSession, model: KnownModel) -> bool:
        """Whether the switch is blocked until an operator allows it; logs and stores the reason.

        model: the next one, as it is in this writing unit of work, so that no operator's request is overwritten.
        """
        reason = await self.blocking_reason(session, model)
        if reason is not None and reason != model.trouble:
            _log.error("reindexing is blocked", model_id=model.model_id, reason=reason)
            await ModelRepository(session).set_progress(model.model_id, None, reason)
        return reason is not None

    async def blocking_reason(self, session: AsyncSession, model: KnownModel) -> str | None:
        """Why a model must not become active unless an operator allows it; None where it may."""
        if model.allow_missing:
            return None
        models = ModelRepository(session)
        unreadable, crops = await models.count_unreadable(model.model_id), await models.count_crops()
        began_by_itself = not self._active_model.ready or (await models.roles()).active_id in SUPERSEDED
        loses_all = began_by_itself and unreadable == crops > 0  # an operator alone may lose all crops of a gallery
        if unreadable <= max(FEW_UNREADABLE, SHARE_UNREADABLE * crops) and not loses_all:
            return None
        command = f"passerby reindex --model {model.model_id}"
        return (
            f"{unreadable:,} of {crops:,} crops cannot be embedded, which is too many to lose by default: check "
            f"that the image store is complete, then start the reindex again with `{command}`; or go on without them, "
            f"with `{command} --allow-missing`"
        )

    # the switch

    async def _activate(self, model: KnownModel, running: RunningModel) -> bool:
        """Make the next model the active one; False where more than LAST_CROPS crops are still pending."""
        await running.index.catch_up()  # so the index has little to apply after the switch
        async with self._database.write() as session:  # no other writer stores a crop from here on
            models = ModelRepository(session)
            next_model = await models.model_in(NEXT)
            if next_model is None or next_model.model_id != model.model_id:
                return True
            if await self._block_if_unreadable(session, next_model):
                return True
            crops = await models.pending(model.model_id, 0, LAST_CROPS + 1)
            if len(crops) > LAST_CROPS:
                return False
            try:
                outcomes = await self._embed(crops, partial(_embed_now, running))
            except EngineError:  # the process embeds these crops, or marks those that it fails on
                return False
            await _insert(session, model.model_id, outcomes)
            if await self._block_if_unreadable(session, next_model):
                return True
            await models.activate(model.model_id)
            unreadable = await models.count_unreadable(model.model_id)
        _log.info("all crops are embedded", model_id=model.model_id, unreadable=unreadable)
        await self._active_model.refresh()
        return True

    # dropping a model

    async def _drop(self, model: KnownModel) -> None:
        """Delete a model's embeddings and changes, then its row and its checkpoint."""
        model_id = model.model_id
        while not self._stopped:
            async with self._database.write() as session:
                models, embeddings = ModelRepository(session), EmbeddingRepository(session)
                known = await models.model(model_id)
                if known is None or known.state != DROPPED:  # a service that found no other model has made it the next
                    return
                if await models.drop_embeddings(model_id, _DROPPED_AT_ONCE):
                    continue
                oldest = await embeddings.oldest_changes(model_id, 0, _TRIMMED_AT_ONCE)
                if oldest is not None:
                    await embeddings.trim_changes(model_id, oldest)
                    continue
                await models.remove(model_id)
            if model.checkpoint:
                await self._checkpoints.delete(model.checkpoint)
            return


async def _embed_now(running: RunningModel, contents: Sequence[bytes]) -> list[Embedded]:
    """Embed with the service's own engines, which are fast, as all writers wait. Raises EngineError."""
    embedded: list[Embedded] = []
    for outcome in await running.embedding.embed(contents, Priority.SEARCH):
        if isinstance(outcome, EngineError):
            raise outcome
        embedded.append(outcome.parts if isinstance(outcome, EmbeddedCrop) else str(outcome))
    return embedded


async def _insert(session: AsyncSession, model_id: str, outcomes: Mapping[int, Embedded]) -> Mapping[int, str]:
    """Insert outcomes within a writing unit of work, without crops that were deleted or embedded since.

    Returns the problems of crops that have no embedding.
    """
    models = ModelRepository(session)
    pending = await models.still_pending(model_id, outcomes)
    vectors, problems = {}, {}
    for key in sorted(pending):
        outcome = outcomes[key]
        if isinstance(outcome, str):
            problems[key] = outcome
        else:
            vectors[key] = outcome.reshape(-1)
    await EmbeddingRepository(session).add_embeddings(vectors, model_id)
    await models.add_unreadable(model_id, problems)
    return problems
