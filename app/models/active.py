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
from app.kit.shared_runs import SharedRuns
from app.models.repository import ModelRepository, ModelRoles, Progress
from app.models.tables import ACTIVE, NEXT, KnownModel

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


class ActiveModel:
    """Holds the model that this process uses, and switches when the database names another one.

    The next model is loaded and its index synchronised before the switch, so the switch is fast. A replaced model runs
    until its last user is done. Where the database names no active model, or the active one cannot be loaded, the next
    model runs, and searches are refused until it has embedded all crops.

    current: the model that runs, to inspect; work with it inside `use`. next: the next model, once it is loaded and its
    index is synchronised. ready: whether `current` is the active model; if not, it is the next one. trouble,
    next_trouble: why the model that the database names, or the next one, does not run here; None if it does.
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
        self.current = model
        self.next: RunningModel | None = None
        self.ready = False
        self.trouble: str | None = None
        self.next_trouble: str | None = None
        self._users = {model: 0}
        self._user_done = asyncio.Event()
        self._draining: set[asyncio.Task[None]] = set()
        self._polls = SharedRuns(self._poll)
        self._count_lock = asyncio.Lock()
        self._counted_at = -_COUNT_SECONDS
        self._counted: tuple[KnownModel, Progress] | None = None

    def loaded(self, model_id: str) -> RunningModel | None:
        """A model by its id, if it is the current or the next one here."""
        loaded = (model for model in (self.current, self.next) if model is not None)
        return next((model for model in loaded if model.id == model_id), None)

    async def start(self) -> None:
        """Run the active model, if it is not the one that runs."""
        roles = await self._roles()
        self.ready = roles.active_id == self.current.id
        if roles.active_id is not None and not self.ready:
            with suppress(NotReady):  # `trouble` holds the reason
                await self.refresh()

    async def stop(self) -> None:
        """Stop all running models."""
        await self._polls.stop()
        if self._draining:
            await asyncio.wait(self._draining)
        if self.next is not None:
            await self.next.stop()
        await self.current.stop()

    @contextmanager
    def use(self) -> Iterator[RunningModel]:
        """The current model, which keeps running at least until the block ends."""
        model = self.current
        self._users[model] += 1
        try:
            yield model
        finally:
            self._users[model] -= 1
            self._user_done.set()

    async def readiness_error(self, *more: str) -> NotReady | None:
        """Why searches are refused here, with the progress of the next model; None where they are not.

        more: further reasons for the message. The counts of crops are cached for a second.
        """
        if self.ready:
            return None
        async with self._count_lock:
            now = asyncio.get_running_loop().time()
            if now >= self._counted_at + _COUNT_SECONDS:
                self._counted = await self._count()
                self._counted_at = now
        reasons = [reason for reason in (self.trouble, *more) if reason is not None]
        if self._counted is None:
            return NotReady("; ".join(reasons) or f"{self.current.id} is about to become active: try again in a moment")
        return _incomplete(*self._counted, reasons)

    async def check_ready(self) -> None:
        """Raise NotReady where searches are refused here."""
        if (error := await self.readiness_error()) is not None:
            raise error

    async def _count(self) -> tuple[KnownModel, Progress] | None:
        """The model that is to be active, and its progress."""
        async with self._database.read() as session:
            models = ModelRepository(session)
            model = await models.model_in(NEXT) or await models.model_in(ACTIVE)
            if model is None or (model.state == ACTIVE and model.model_id != self.current.id):
                return None
            return model, await models.progress(model.model_id)

    async def sync(self) -> None:
        """Return once this process uses the model that was active at the time of the call, or a later one.

        Raises NotReady where it cannot.
        """
        if (await self._roles()).active_id != self.current.id:
            await self.refresh()

    async def refresh(self) -> None:
        """Poll the database now and switch models as it says. Raises NotReady where the active model cannot be loaded.

        Calls that come during a poll share the next one.
        """
        await self._polls.run()

    async def _roles(self) -> ModelRoles:
        async with self._database.read() as session:
            return await ModelRepository(session).roles()

    async def _poll(self) -> None:
        roles = await self._roles()
        failure = await self._run_current(roles)
        next_id = None if roles.next_id == self.current.id else roles.next_id
        if self.next is not None and self.next.id != next_id:
            cancelled, self.next = self.next, None
            await cancelled.stop()
        self.next_trouble = None
        if next_id is not None and self.next is None:
            await self._load_next(next_id)
        if failure is not None:
            raise await self.readiness_error() or failure

    async def _run_current(self, roles: ModelRoles) -> NotReady | None:
        """Run the active model, or the next one where none is active; the error where that is not possible."""
        is_active = roles.active_id is not None
        try:
            if roles.embedding_id is not None and roles.embedding_id != self.current.id:
                await self._switch_to(roles.embedding_id)
            elif is_active and not self.ready:
                await self.current.index.catch_up()
        except Exception as error:
            self.ready = self.ready and is_active
            role = "the active" if is_active else "the next"
            self.trouble = f"{roles.embedding_id} is {role} model, but cannot be loaded here: {error}"
            failure = NotReady(self.trouble)
            failure.__cause__ = error
            return failure
        self.trouble = None
        self.ready = is_active
        return None

    async def _switch_to(self, model_id: str) -> None:
        model = self.loaded(model_id)
        if model is None:
            model = await self._load(model_id)
        else:
            await model.index.catch_up()
        if model is self.next:
            self.next = None
        before, self.current = self.current, model
        self._users[model] = 0
        _log.info("the model was switched", model_id=model.id, previous=before.id)
        draining = asyncio.create_task(self._drain(before))
        self._draining.add(draining)
        draining.add_done_callback(self._draining.discard)

    async def _load_next(self, model_id: str) -> None:
        try:
            self.next = await self._load(model_id)
        except Exception as error:
            self.next_trouble = f"{model_id} cannot be loaded here: {error}"
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


def _incomplete(model: KnownModel, progress: Progress, reasons: Sequence[str]) -> EmbeddingIncomplete:
    embedded, total = progress.embedded, progress.total
    message = (
        f"{model.model_id} becomes active once it has embedded all crops, and has embedded {embedded:,} of {total:,}; "
        "GET /reindex shows the progress"
    )
    reasons = [message, *reasons, *([] if model.trouble is None else [model.trouble])]
    speed = model.crops_per_second
    seconds = max(1.0, (total - embedded) / speed) if speed else _RETRY_SECONDS
    retry_after = seconds if model.trouble is None else None
    return EmbeddingIncomplete("; ".join(reasons), model.model_id, embedded, total, retry_after)
