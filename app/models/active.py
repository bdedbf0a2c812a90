"""The active model of this process: it follows the database, and a request uses one model from start to end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog

from app.database import Database
from app.embedding.service import EmbeddingService
from app.errors import EmbeddingIncomplete, NotReady
from app.index.sync import IndexSync
from app.models.repository import ModelRepository, ModelRoles
from app.models.tables import ACTIVE, NEXT

_COUNT_SECONDS = 1.0  # for which a count of crops is reused; counting takes a tenth of that for a million crops
_RETRY_SECONDS = 10.0  # for Retry-After while the speed of embedding is unknown

_log = structlog.get_logger()


class ModelChanged(Exception):
    """The active model is no longer the one that a request has used; the request must start again."""


@dataclass(frozen=True, eq=False)
class RunningModel:
    """A loaded model: its embedding service and the index of its embeddings. An index holds one model's embeddings."""

    embedding: EmbeddingService
    index: IndexSync

    @property
    def id(self) -> str:
        """The model id."""
        return self.embedding.metadata.model_id

    async def stop(self) -> None:
        """Finish the accepted work, and stop."""
        await self.embedding.stop()
        await self.index.stop()


@dataclass(frozen=True)
class _Progress:
    """The progress of embedding: crops embedded and in total, recent crops a second, and the error, if any."""

    model_id: str
    embedded: int
    total: int
    crops_per_second: float | None
    trouble: str | None


class ActiveModel:
    """Holds the model that this process uses, and switches when the database names another one.

    The next model is loaded and its index synchronised before the switch, so the switch is fast. A replaced model runs
    until its last user is done. Where the database names no active model, or the active one cannot be loaded, the next
    model runs, and searches are refused until it has embedded all crops.
    """

    def __init__(
        self,
        database: Database,
        model: RunningModel,
        load: Callable[[str], Awaitable[RunningModel]],
    ) -> None:
        """model: the one that runs already; load: starts a model by its id, and raises where it cannot."""
        self._database = database
        self._load = load
        self._current = model
        self._next: RunningModel | None = None
        self._users = {model: 0}
        self._user_done = asyncio.Event()
        self._draining: set[asyncio.Task[None]] = set()
        self._poll_lock = asyncio.Lock()
        self._next_poll: asyncio.Task[None] | None = None
        self._ready = False
        self._trouble: str | None = None
        self._next_trouble: str | None = None
        self._count_lock = asyncio.Lock()
        self._counted_at = -_COUNT_SECONDS
        self._counted: _Progress | None = None

    @property
    def current(self) -> RunningModel:
        """The model that runs, to inspect; work with it inside `use`."""
        return self._current

    @property
    def next(self) -> RunningModel | None:
        """The next model, once it is loaded here and its index is synchronised."""
        return self._next

    def loaded(self, model_id: str) -> RunningModel | None:
        """A model by its id, if it is the current or the next one here."""
        loaded = (model for model in (self._current, self._next) if model is not None)
        return next((model for model in loaded if model.id == model_id), None)

    @property
    def ready(self) -> bool:
        """Whether `current` is the active model; if not, it is the next one."""
        return self._ready

    @property
    def trouble(self) -> str | None:
        """Why the model that the database names does not run here; None if it does."""
        return self._trouble

    @property
    def next_trouble(self) -> str | None:
        """Why the next model could not be loaded here; None if it was, or there is none."""
        return self._next_trouble

    async def start(self) -> None:
        """Run the active model, if it is not the one that runs."""
        roles = await self._roles()
        self._ready = roles.active_id == self._current.id
        if roles.active_id is not None and not self._ready:
            with suppress(NotReady):  # `trouble` holds the reason
                await self.refresh()

    async def stop(self) -> None:
        """Stop all running models."""
        async with self._poll_lock:  # a running poll is finished, as callers wait for it
            if self._next_poll is not None:
                self._next_poll.cancel()
        if self._draining:
            await asyncio.wait(self._draining)
        if self._next is not None:
            await self._next.stop()
        await self._current.stop()

    @contextmanager
    def use(self) -> Iterator[RunningModel]:
        """The current model, which keeps running at least until the block ends."""
        model = self._current
        self._users[model] += 1
        try:
            yield model
        finally:
            self._users[model] -= 1
            self._user_done.set()

    async def not_ready(self, *more: str) -> NotReady | None:
        """Why searches are refused here, with the progress of the next model; None where they are not.

        more: further reasons for the message. The counts of crops are cached for a second.
        """
        if self._ready:
            return None
        async with self._count_lock:
            now = asyncio.get_running_loop().time()
            if now >= self._counted_at + _COUNT_SECONDS:
                self._counted = await self._count()
                self._counted_at = now
        reasons = [reason for reason in (self._trouble, *more) if reason is not None]
        if self._counted is None:
            return NotReady(
                "; ".join(reasons) or f"{self._current.id} is about to become active: try again in a moment"
            )
        return _incomplete(self._counted, reasons)

    async def check_ready(self) -> None:
        """Raise NotReady where searches are refused here."""
        if (error := await self.not_ready()) is not None:
            raise error

    async def _count(self) -> _Progress | None:
        async with self._database.read() as session:
            models = ModelRepository(session)
            model = await models.model_in(NEXT) or await models.model_in(ACTIVE)
            if model is None or (model.state == ACTIVE and model.model_id != self._current.id):
                return None
            embedded, total = await models.count_embeddings(model.model_id), await models.count_crops()
        return _Progress(model.model_id, embedded, total, model.crops_per_second, model.trouble)

    async def sync(self) -> None:
        """Return once this process uses the model that was active at the time of the call, or a later one.

        Raises NotReady where it cannot.
        """
        if (await self._roles()).active_id != self._current.id:
            await self.refresh()

    async def refresh(self) -> None:
        """Poll the database now and switch models as it says. Raises NotReady where the active model cannot be loaded.

        Calls that come during a poll share the next one.
        """
        if self._next_poll is None:
            self._next_poll = asyncio.create_task(self._poll_once())
        await asyncio.shield(self._next_poll)

    async def _poll_once(self) -> None:
        async with self._poll_lock:
            self._next_poll = None
            await self._poll()

    async def _roles(self) -> ModelRoles:
        async with self._database.read() as session:
            return await ModelRepository(session).roles()

    async def _poll(self) -> None:
        roles = await self._roles()
        failure = await self._run_current(roles)
        next_id = None if roles.next_id == self._current.id else roles.next_id
        if self._next is not None and self._next.id != next_id:
            cancelled, self._next = self._next, None
            await cancelled.stop()
        self._next_trouble = None
        if next_id is not None and self._next is None:
            await self._load_next(next_id)
        if failure is not None:
            raise await self.not_ready() or failure

    async def _run_current(self, roles: ModelRoles) -> NotReady | None:
        """Run the active model, or the next one where none is active; the error where that is not possible."""
        is_active = roles.active_id is not None
        try:
            if roles.embedding_id is not None and roles.embedding_id != self._current.id:
                await self._switch_to(roles.embedding_id)
            elif is_active and not self._ready:
                await self._current.index.catch_up()
        except Exception as error:
            self._ready = self._ready and is_active
            role = "the active" if is_active else "the next"
            self._trouble = f"{roles.embedding_id} is {role} model, but cannot be loaded here: {error}"
            failure = NotReady(self._trouble)
            failure.__cause__ = error
            return failure
        self._trouble = None
        self._ready = is_active
        return None

    async def _switch_to(self, model_id: str) -> None:
        loaded = self._next is not None and self._next.id == model_id
        model = self._next if loaded and self._next is not None else await self._load(model_id)
        await model.index.catch_up()
        if model is self._next:
            self._next = None
        before, self._current = self._current, model
        self._users[model] = 0
        _log.warning("the model was switched", model_id=model.id, before=before.id)
        draining = asyncio.create_task(self._drain(before))
        self._draining.add(draining)
        draining.add_done_callback(self._draining.discard)

    async def _load_next(self, model_id: str) -> None:
        try:
            self._next = await self._load(model_id)
        except Exception as error:
            self._next_trouble = f"{model_id} cannot be loaded here: {error}"
            _log.error("the next model cannot be loaded", model_id=model_id, error=str(error))

    async def _drain(self, model: RunningModel) -> None:
        """Stop a model that was replaced, once its last user is done."""
        while self._users[model]:
            self._user_done.clear()
            await self._user_done.wait()
        del self._users[model]
        try:
            await model.stop()
        except Exception as error:
            _log.error("a replaced model failed to stop", model_id=model.id, exc_info=error)


def _incomplete(progress: _Progress, reasons: Sequence[str]) -> EmbeddingIncomplete:
    message = (
        f"{progress.model_id} becomes active once it has embedded all crops, and has embedded {progress.embedded:,} of "
        f"{progress.total:,}; GET /reindex shows the progress"
    )
    reasons = [message, *reasons, *([] if progress.trouble is None else [progress.trouble])]
    speed, left = progress.crops_per_second, progress.total - progress.embedded
    retry_after = max(1.0, left / speed) if speed else _RETRY_SECONDS
    return EmbeddingIncomplete(
        "; ".join(reasons),
        progress.model_id,
        progress.embedded,
        progress.total,
        retry_after if progress.trouble is None else None,
    )
