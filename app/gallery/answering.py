"""Which model this process answers by: the one that the database says, and each request by one from end to end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from app.database import Database
from app.embedding.service import EmbeddingService
from app.errors import NotReady
from app.gallery.repository import GalleryRepository
from app.index.keeper import IndexKeeper

_LONGEST_PAUSE = 30.0  # seconds before a model that could not be loaded is tried again

_log = structlog.get_logger()


class ModelChanged(Exception):
    """Another model answers than the one that a request has used: it is to begin again with that."""


@dataclass(frozen=True, eq=False)
class RunningModel:
    """A model at work: what embeds with it, and the index of its embeddings, which never meet another's."""

    embedding: EmbeddingService
    index: IndexKeeper

    @property
    def id(self) -> str:
        """Its model id."""
        return self.embedding.metadata.model_id

    async def stop(self) -> None:
        """Finish what it was given, and stop."""
        await self.embedding.stop()
        await self.index.stop()


class Answering:
    """Holds the model that this process answers by, and follows the database where that says another one.

    The next model is loaded and its index kept in step before its turn comes, so that the change takes a moment. Who
    uses a model keeps it running until done.
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
        self._trouble: str | None = None
        self._next_trouble: str | None = None

    @property
    def now(self) -> RunningModel:
        """The model that answers, for a look at it; work is done with `use`."""
        return self._now

    @property
    def next(self) -> RunningModel | None:
        """The model that will answer, once it is loaded here and its index is in step."""
        return self._next

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

    async def agree(self) -> None:
        """Return once this process answers by the model that did when this was called, or a later one.

        Raises NotReady where it cannot.
        """
        async with self._database.read() as session:
            answering = await GalleryRepository(session).answering_model()
        if answering != self._now.id:
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

    async def _look(self) -> None:
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            answering, following = await repository.answering_model(), await repository.next_model()
        if answering is not None and answering != self._now.id:
            await self._answer_by(answering)
        self._trouble = None
        if self._next is not None and self._next.id != following:
            given_up, self._next = self._next, None
            await given_up.stop()
        self._next_trouble = None
        if following is not None and self._next is None:
            await self._prepare(following)

    async def _answer_by(self, model_id: str) -> None:
        try:
            prepared = self._next is not None and self._next.id == model_id
            model = self._next if prepared and self._next is not None else await self._load(model_id)
            await model.index.catch_up()
        except Exception as error:
            self._trouble = f"{model_id} answers, but cannot be loaded here: {error}"
            raise NotReady(self._trouble) from error
        if model is self._next:
            self._next = None
        before, self._now = self._now, model
        self._users[model] = 0
        _log.warning("another model answers from now on", model_id=model.id, before=before.id)
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
