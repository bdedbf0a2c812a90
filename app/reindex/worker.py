"""What embeds the stored crops with the next model in the background, lets it answer, and deletes what was given up."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.embedding.decoding import PictureError
from app.embedding.queue import Priority
from app.embedding.service import EmbeddedCrop
from app.errors import NotReady
from app.gallery.answering import Answering, RunningModel
from app.gallery.images import ImageStore
from app.gallery.model_repository import ModelRepository
from app.gallery.repository import GalleryRepository
from app.gallery.tables import DROPPED, NEXT, KnownModel
from app.kit.leaving import ClientLeft, unless_left
from app.reindex.checkpoints import CheckpointStore
from app.reindex.repository import ReindexRepository, Unembedded
from model.checkpoint import SUPERSEDED

CROPS_AT_ONCE = 32
"""Of a step: what a kill undoes, and what giving up waits for."""

LAST_CROPS = 8
"""Crops that may be left when the model is changed; they are embedded while nobody else can store any."""

FEW_UNREADABLE, SHARE_UNREADABLE = 10, 0.01
"""Pictures that may be lost by a change of the model, and which share of all: more look like a lost disk."""

_DROPPED_AT_ONCE = 1_000  # writers wait for this in the meantime
_TRIMMED_AT_ONCE = 5_000
_LOG_SECONDS = 10.0  # between two lines of the log that tell the progress
_LONGEST_PAUSE = 60.0  # seconds before what failed is tried again

_log = structlog.get_logger()


def too_many(unreadable: int, crops: int, asked_for: bool) -> bool:
    """Whether so many of a gallery's pictures cannot be read that a model must not take over without being told so.

    asked_for: whether somebody wants the change; one that began by itself must not leave a gallery without any crop.
    """
    return unreadable > max(FEW_UNREADABLE, SHARE_UNREADABLE * crops) or (unreadable == crops > 0 and not asked_for)


class Embedder(Protocol):
    """What embeds files for which nobody waits."""

    def embed(self, contents: Sequence[bytes]) -> Coroutine[Any, Any, Sequence[NDArray[np.float32] | str]]:
        """The parts `(8, 256)` of each file, or why there are none, in their order."""


@dataclass(frozen=True)
class _Outcomes:
    """What became of crops, by key: embeddings `(2048,)`, or why there are none."""

    vectors: Mapping[int, NDArray[np.float32]]
    problems: Mapping[int, str]


class ReindexWorker:
    """Does what the database says is left to do, one process at a time, and goes on wherever another one ended.

    What is left needs no book-keeping: it is the crops without an embedding of the next model.
    """

    def __init__(
        self,
        database: Database,
        images: ImageStore,
        answering: Answering,
        checkpoints: CheckpointStore,
        embedder: Callable[[Path], AbstractAsyncContextManager[Embedder]],
        poll_seconds: float = 1.0,
    ) -> None:
        """embedder: starts what embeds with a checkpoint; poll_seconds: pause between looks at the database."""
        self._database = database
        self._images = images
        self._answering = answering
        self._checkpoints = checkpoints
        self._embedder = embedder
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._log_at = 0.0
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for work."""
        self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish the transaction that is under way; what is being embedded is left to the next process."""
        self._stopped.set()
        self._woken.set()
        if self._working is not None:
            await self._working

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    async def _work(self) -> None:
        pause = self._poll_seconds
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            self._woken.clear()
            try:
                with suppress(ClientLeft):  # see _unless_stopped
                    await self._look()
                pause = self._poll_seconds
            except Exception as error:
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)
                _log.error("re-embedding failed and is tried again", seconds=pause, exc_info=error)
                with suppress(Exception):  # the database may be what failed
                    await self._tell_failure(error)

    async def _tell_failure(self, error: Exception) -> None:
        async with self._database.write() as session:
            repository = ModelRepository(session)
            for model in (await repository.model_that(NEXT), *await repository.models_that(DROPPED)):
                if model is not None:
                    await repository.tell(model.model_id, None, f"{type(error).__name__}: {error}")

    async def _look(self) -> None:
        async with self._database.read() as session:
            repository = ModelRepository(session)
            following, dropped = await repository.model_that(NEXT), await repository.models_that(DROPPED)
        prepared = None if following is None else await self._prepared(following)
        if prepared is None and not dropped:
            return
        async with self._database.alone() as alone:
            if not alone:
                return
            for model in dropped:
                await self._drop(model)
            if following is not None and prepared is not None:
                await self._bring_to_answer(following, prepared)

    async def _prepared(self, model: KnownModel) -> RunningModel | None:
        """The next model as it runs here; None where it cannot be loaded, so that another process is to do the work."""
        answering = self._answering
        if answering.now.id != model.model_id and answering.next is None and answering.next_trouble is None:
            with suppress(NotReady):  # where the model that answers is lost, which does not concern the next one
                await answering.refresh()
        loaded = (one for one in (answering.now, answering.next) if one is not None)
        return next((one for one in loaded if one.id == model.model_id), None)

    # embedding

    async def _bring_to_answer(self, model: KnownModel, prepared: RunningModel) -> None:
        """Embed what is left, as long as there is anything, then let the model answer."""
        if await self._is_held(model) or await self._let_answer(model, prepared):
            return
        async with self._embedder(await self._checkpoints.path(model.checkpoint)) as embedder:
            await self._log_progress(model)
            while not self._stopped.is_set():
                if not await self._embed_all(model, embedder) or await self._let_answer(model, prepared):
                    return

    async def _embed_all(self, model: KnownModel, embedder: Embedder) -> bool:
        """Embed the crops that are there, by key, but for a few that came last; False where it is to go no further."""
        key = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            async with self._database.read() as session:
                crops = await ReindexRepository(session).unembedded(model.model_id, key, CROPS_AT_ONCE)
            if len(crops) <= (LAST_CROPS if key else 0):
                return True
            outcomes = await self._embed(crops, embedder)
            if not await self._store(model, outcomes, len(crops) / (time.monotonic() - began)):
                return False
            key = crops[-1].key
        return False

    async def _embed(self, crops: Sequence[Unembedded], embedder: Embedder) -> _Outcomes:
        contents, problems = await self._read(crops)
        embedded = (
            dict(zip(contents, await self._unless_stopped(embedder, list(contents.values())), strict=True))
            if contents
            else {}
        )
        vectors = {key: one.reshape(-1) for key, one in embedded.items() if not isinstance(one, str)}
        return _Outcomes(vectors, problems | {key: one for key, one in embedded.items() if isinstance(one, str)})

    async def _unless_stopped(
        self, embedder: Embedder, contents: Sequence[bytes]
    ) -> Sequence[NDArray[np.float32] | str]:
        """What a process that gives way takes long for is not waited for at the end. Raises ClientLeft then."""

        async def stopped() -> None:
            await self._stopped.wait()

        return await unless_left(stopped, embedder.embed(contents))

    async def _read(self, crops: Sequence[Unembedded]) -> tuple[dict[int, bytes], dict[int, str]]:
        """The pictures by crop key, and what is wrong with those that are not there."""
        contents = await asyncio.gather(*(self._images.read(crop.image_sha256) for crop in crops))
        read = dict(zip((crop.key for crop in crops), contents, strict=True))
        missing = {key: "its picture is gone" for key, content in read.items() if content is None}
        return {key: content for key, content in read.items() if content is not None}, missing

    async def _store(self, model: KnownModel, outcomes: _Outcomes, crops_per_second: float) -> bool:
        """Keep what was embedded; False where the model's turn is over, or must not go on."""
        async with self._database.write() as session:
            models = ModelRepository(session)
            if (await models.active()).following != model.model_id:
                return False
            await _keep(ReindexRepository(session), GalleryRepository(session), model.model_id, outcomes)
            await models.tell(model.model_id, crops_per_second, None)
        if time.monotonic() >= self._log_at:
            await self._log_progress(model)
        return not (outcomes.problems and await self._is_held(model))

    async def _log_progress(self, model: KnownModel) -> None:
        async with self._database.read() as session:
            repository = ModelRepository(session)
            embedded, crops = await repository.count_embeddings(model.model_id), await repository.count_crops()
        _log.info("crops are being embedded", model_id=model.model_id, embedded=embedded, total=crops)
        self._log_at = time.monotonic() + _LOG_SECONDS

    async def _is_held(self, model: KnownModel) -> bool:
        """Whether so many pictures cannot be read that somebody should look first; says so, too."""
        async with self._database.read() as session:
            trouble = await self._objection(session, model)
        if trouble is not None and trouble != model.trouble:
            _log.error("re-embedding waits", model_id=model.model_id, reason=trouble)
            async with self._database.write() as session:
                await ModelRepository(session).tell(model.model_id, None, trouble)
        return trouble is not None

    async def _objection(self, session: AsyncSession, model: KnownModel) -> str | None:
        """Why a model must not take over unless somebody says so; None where nothing speaks against it."""
        if model.lossy:
            return None
        unreadable = await ReindexRepository(session).count_unreadable(model.model_id)
        crops = await ModelRepository(session).count_crops()
        if not too_many(unreadable, crops, await self.asked_for(session)):
            return None
        command = f"passerby reindex --model {model.model_id}"
        return (
            f"{unreadable:,} of {crops:,} crops cannot be embedded, which is too many to lose unasked: see whether the "
            f"store of images is whole, then start the reindex again with `{command}`; or go on without them, with "
            f"`{command} --lossy`"
        )

    async def asked_for(self, session: AsyncSession) -> bool:
        """Whether the change can be one that somebody wants, and is not certainly one that began by itself."""
        answering = (await ModelRepository(session).active()).answering
        return self._answering.ready and answering not in SUPERSEDED

    # the change

    async def _let_answer(self, model: KnownModel, prepared: RunningModel) -> bool:
        """Change the model, unless crops have come meanwhile that take longer; False then."""
        await prepared.index.catch_up()  # so that little is left to do after the change
        async with self._database.write() as session:  # from here on nobody else stores a crop
            gallery, repository = GalleryRepository(session), ReindexRepository(session)
            models = ModelRepository(session)
            if (await models.active()).following != model.model_id:
                return True
            crops = await repository.unembedded(model.model_id, 0, LAST_CROPS + 1)
            if len(crops) > LAST_CROPS:
                return False
            outcomes = await self._embed_last(crops, prepared)
            if outcomes is None:
                return False
            await _keep(repository, gallery, model.model_id, outcomes)
            may_answer = await self._objection(session, model) is None
            if may_answer:
                await models.answer_by(model.model_id)
        if not may_answer:
            return await self._is_held(model)
        unreadable = await self._unreadable(model)
        _log.warning("all crops are embedded", model_id=model.model_id, but_for=unreadable)
        await self._answering.refresh()
        return True

    async def _embed_last(self, crops: Sequence[Unembedded], prepared: RunningModel) -> _Outcomes | None:
        """By the engines that will answer, as everybody who stores waits for it; None where these fail."""
        contents, problems = await self._read(crops)
        results = dict(
            zip(contents, await prepared.embedding.embed(list(contents.values()), Priority.SEARCH), strict=True)
        )
        vectors = {key: one.parts.reshape(-1) for key, one in results.items() if isinstance(one, EmbeddedCrop)}
        problems |= {key: str(one) for key, one in results.items() if isinstance(one, PictureError)}
        return _Outcomes(vectors, problems) if len(vectors) + len(problems) == len(crops) else None

    async def _unreadable(self, model: KnownModel) -> int:
        async with self._database.read() as session:
            return await ReindexRepository(session).count_unreadable(model.model_id)

    # giving up

    async def _drop(self, model: KnownModel) -> None:
        """Delete a model's embeddings and changes, then what is noted of it, and its checkpoint."""
        model_id = model.model_id
        while not self._stopped.is_set():
            async with self._database.write() as session:
                if not await _is_dropped(session, model_id):
                    return
                if not await ReindexRepository(session).drop_embeddings(model_id, _DROPPED_AT_ONCE):
                    break
        while not self._stopped.is_set():
            async with self._database.write() as session:
                if not await _is_dropped(session, model_id):
                    return
                repository = GalleryRepository(session)
                oldest = await repository.oldest_changes(model_id, 0, _TRIMMED_AT_ONCE)
                if oldest is None:
                    await ReindexRepository(session).forget_unreadable(model_id)
                    await ModelRepository(session).forget(model_id)
                    break
                await repository.trim_changes(model_id, oldest)
        else:
            return
        if model.checkpoint:
            await self._checkpoints.delete(model.checkpoint)


async def _is_dropped(session: AsyncSession, model_id: str) -> bool:
    """Whether a model is still to go: a service that found nothing else to answer by may have taken it up again."""
    model = await ModelRepository(session).model(model_id)
    return model is not None and model.state == DROPPED


async def _keep(repository: ReindexRepository, gallery: GalleryRepository, model_id: str, outcomes: _Outcomes) -> None:
    """Within a writing unit of work, add what is still wanted: crops may be gone, or embedded by another process."""
    wanted = await repository.still_unembedded(model_id, [*outcomes.vectors, *outcomes.problems])
    vectors = {key: vector for key, vector in outcomes.vectors.items() if key in wanted}
    await gallery.add_embeddings(vectors, model_id)
    await repository.add_unreadable(model_id, {k: one for k, one in outcomes.problems.items() if k in wanted})
