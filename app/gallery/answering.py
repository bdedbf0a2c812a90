"""Which model this process answers by: the one that the database says, and each request by one from end to end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog

from app.database import Database
from app.embedding.service import EmbeddingService
from app.errors import NotReady, TakingOver
from app.gallery.model_repository import ActiveModels, ModelRepository
from app.gallery.tables import ANSWERS, NEXT
from app.index.sync import IndexSync

_LONGEST_PAUSE = 30.0  # seconds before a model that could not be loaded is tried again
_COUNTED_FOR = 1.0  # seconds for which counted crops are told again, as counting takes a tenth of that for a million
_RETRY_SECONDS = 10.0  # after which to ask again while nobody knows how long it takes

_log = structlog.get_logger()


class ModelChanged(Exception):
    """Another model answers than the one that a request has used: it is to begin again with that."""


@dataclass(frozen=True, eq=False)
class RunningModel:
    """A model at work: what embeds with it, and the index of its embeddings, which never meet another's."""

    embedding: EmbeddingService
    index: IndexSync

    @property
    def id(self) -> str:
        """Its model id."""
        return self.embedding.metadata.model_id

    async def stop(self) -> None:
        """Finish what it was given, and stop."""
        await self.embedding.stop()
        await self.index.stop()


@dataclass(frozen=True)
class _Progress:
    """How far the model is that is to answer: crops, crops a second of late, and why it does not go on, if so."""

    model_id: str
    embedded: int
    total: int
    crops_per_second: float | None
    trouble: str | None


class Answering:
    """Holds the model that this process answers by, and follows the database where that says another one.

    The next model is loaded and its index kept in step before its turn comes, so that the change takes a moment. Who
    uses a model keeps it running until done. Where no model answers, or the one that does is lost, the next one runs
    in its place, and answers nothing until it has embedded all crops.
    """

    def __init__(
        self,
        database: Database,
        model: RunningModel,
        load: Callable[[str], Awaitable[RunningModel]],
        poll_seconds: float = 1.0,
    ) -> None:
        """model: what is running already; load: starts another by its id, and raises where it cannot; poll_seconds:
        pause between looks at the database.
        """
        self._database = database
        self._load = load
        self._poll_seconds = poll_seconds
        self._now = model
        self._next: RunningModel | None = None
        self._users = {model: 0}
        self._left = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self._one_look = asyncio.Lock()
        self._next_look: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ready = False
        self._trouble: str | None = None
        self._next_trouble: str | None = None
        self._count_alone = asyncio.Lock()
        self._counted_at = -_COUNTED_FOR
        self._counted: _Progress | None = None

    @property
    def now(self) -> RunningModel:
        """The model that answers, for a look at it; work is done with `use`."""
        return self._now

    @property
    def next(self) -> RunningModel | None:
        """The model that will answer, once it is loaded here and its index is in step."""
        return self._next

    @property
    def ready(self) -> bool:
        """Whether a model answers here; if not, `now` is the one that is to."""
        return self._ready

    @property
    def trouble(self) -> str | None:
        """Why this process does not answer by the model that it should; None if it does."""
        return self._trouble

    @property
    def next_trouble(self) -> str | None:
        """Why the next model could not be loaded here; None if it was, or there is none."""
        return self._next_trouble

    async def start(self) -> None:
        """Begin to follow the database."""
        active = await self._active()
        self._ready = active.answering == self._now.id
        if active.answering is not None and not self._ready:
            with suppress(NotReady):  # which `trouble` tells
                await self.refresh()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop following, then all models that run."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        async with self._one_look:  # a look that others wait for comes to its end
            if self._next_look is not None:  # and none begins
                self._next_look.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        if self._next is not None:
            await self._next.stop()
        await self._now.stop()

    @contextmanager
    def use(self) -> Iterator[RunningModel]:
        """The model that answers now, which runs at least as long as the block."""
        model = self._now
        self._users[model] += 1
        try:
            yield model
        finally:
            self._users[model] -= 1
            self._left.set()

    async def not_ready(self, *also: str) -> NotReady | None:
        """Why nothing can be searched here yet, with how far the model is that is to answer; None where one does.

        also: other things that are wrong. Callers share counts of the crops, which may be a second old.
        """
        if self._ready:
            return None
        async with self._count_alone:
            now = asyncio.get_running_loop().time()
            if now >= self._counted_at + _COUNTED_FOR:
                self._counted = await self._count()
                self._counted_at = now
        reasons = [one for one in (self._trouble, *also) if one is not None]
        if self._counted is None:
            return NotReady("; ".join(reasons) or f"{self._now.id} is about to answer: try again in a moment")
        return _taking_over(self._counted, reasons)

    async def check_ready(self) -> None:
        """Raise NotReady where nothing can be searched here yet."""
        if (error := await self.not_ready()) is not None:
            raise error

    async def _count(self) -> _Progress | None:
        async with self._database.read() as session:
            models = ModelRepository(session)
            model = await models.model_that(NEXT) or await models.model_that(ANSWERS)
            if model is None or (model.state == ANSWERS and model.model_id != self._now.id):
                return None
            embedded, total = await models.count_embeddings(model.model_id), await models.count_crops()
        return _Progress(model.model_id, embedded, total, model.crops_per_second, model.trouble)

    async def agree(self) -> None:
        """Return once this process answers by the model that did when this was called, or a later one.

        Raises NotReady where it cannot.
        """
        if (await self._active()).answering != self._now.id:
            await self.refresh()

    async def refresh(self) -> None:
        """Look at the database, and do as it says. Raises NotReady where the model that answers cannot be loaded.

        Callers share looks: all that come while one is under way share the next one.
        """
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look_alone())
        await asyncio.shield(self._next_look)

    async def _watch(self) -> None:
        pause = self._poll_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                await self.refresh()
            except Exception as error:
                if pause == self._poll_seconds:
                    _log.error("the model that answers cannot be followed", error=str(error))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = self._poll_seconds if self._next_trouble is None else min(2 * pause, _LONGEST_PAUSE)

    async def _look_alone(self) -> None:
        async with self._one_look:
            self._next_look = None
            await self._look()

    async def _active(self) -> ActiveModels:
        async with self._database.read() as session:
            return await ModelRepository(session).active()

    async def _look(self) -> None:
        active = await self._active()
        failure = await self._follow(active)
        following = None if active.following == self._now.id else active.following
        if self._next is not None and self._next.id != following:
            given_up, self._next = self._next, None
            await given_up.stop()
        self._next_trouble = None
        if following is not None and self._next is None:
            await self._prepare(following)
        if failure is not None:
            raise await self.not_ready() or failure

    async def _follow(self, active: ActiveModels) -> NotReady | None:
        """Run the model that answers, or the next one where none does; why that is not possible, if so."""
        answers = active.answering is not None
        try:
            if active.storing is not None and active.storing != self._now.id:
                await self._run(active.storing)
            elif answers and not self._ready:
                await self._now.index.catch_up()
        except Exception as error:
            self._ready = self._ready and answers
            what = "answers" if answers else "is to answer"
            self._trouble = f"{active.storing} {what}, but cannot be loaded here: {error}"
            failure = NotReady(self._trouble)
            failure.__cause__ = error
            return failure
        self._trouble = None
        self._ready = answers
        return None

    async def _run(self, model_id: str) -> None:
        prepared = self._next is not None and self._next.id == model_id
        model = self._next if prepared and self._next is not None else await self._load(model_id)
        await model.index.catch_up()
        if model is self._next:
            self._next = None
        before, self._now = self._now, model
        self._users[model] = 0
        _log.warning("another model runs from now on", model_id=model.id, before=before.id)
        retiring = asyncio.create_task(self._retire(before))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def _prepare(self, model_id: str) -> None:
        try:
            self._next = await self._load(model_id)
        except Exception as error:
            self._next_trouble = f"{model_id} cannot be loaded here: {error}"
            _log.error("the next model cannot be loaded", model_id=model_id, error=str(error))

    async def _retire(self, model: RunningModel) -> None:
        while self._users[model]:
            self._left.clear()
            await self._left.wait()
        del self._users[model]
        try:
            await model.stop()
        except Exception as error:
            _log.error("a model that answers no more did not stop as it should", model_id=model.id, exc_info=error)


def _taking_over(progress: _Progress, reasons: Sequence[str]) -> TakingOver:
    message = (
        f"{progress.model_id} answers once it has embedded all crops, and has embedded {progress.embedded:,} of "
        f"{progress.total:,}; GET /reindex tells how far it is"
    )
    reasons = [message, *reasons, *([] if progress.trouble is None else [progress.trouble])]
    speed, left = progress.crops_per_second, progress.total - progress.embedded
    retry_after = max(1.0, left / speed) if speed else _RETRY_SECONDS
    return TakingOver(
        "; ".join(reasons),
        progress.model_id,
        progress.embedded,
        progress.total,
        retry_after if progress.trouble is None else None,
    )
