"""The batch queue's rules hold for random sequences of events, compared with a reference model."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import hypothesis.strategies as st
import numpy as np
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from app.embedding.batch_queue import BatchQueue, QueueFull
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError, Engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.worker import Outcome
from model.architecture import PART_DIM, PARTS
from tests.app.tiny_checkpoint import tiny_metadata

SIZE = (32, 32)
MAX_BATCH = 8
CAPACITY = 40
BLANK = 0
"""The number of the blank crop, which no caller sends."""

Health = Literal["sound", "raises", "gives NaN"]
_HEALTHS: tuple[Health, ...] = ("sound", "raises", "gives NaN")


def crop(number: int, health: Health) -> NDArray[np.uint8]:
    """A crop with its number and the outcome that the engine gives."""
    pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
    pixels[0, 0] = number // 256, number % 256, _HEALTHS.index(health)
    return pixels


class SteppedEngine:
    """Gives each crop's number as its parts. Every call waits for a permit; its numbers are recorded."""

    def __init__(self) -> None:
        self.metadata = tiny_metadata(*SIZE)
        self.calls: list[list[int]] = []
        self.permits = threading.Semaphore(0)
        self.largest_batch = MAX_BATCH

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        high, low, health = crops[:, 0, 0].astype(int).T
        numbers = 256 * high + low
        self.calls.append(numbers.tolist())
        self.permits.acquire()
        if len(crops) > self.largest_batch:
            raise MemoryError("the batch is too large")
        if _HEALTHS.index("raises") in health:
            raise RuntimeError("a crop is poisoned")
        parts = np.empty((len(crops), len(PARTS), PART_DIM), dtype=np.float32)
        parts[:] = numbers[:, None, None]
        parts[health == _HEALTHS.index("gives NaN"), 3, 7] = np.nan
        return parts


@dataclass(eq=False)
class Request:
    """A caller's crops, by number; `task` ends when the caller has its outcomes or is cancelled."""

    numbers: Sequence[int]
    priority: Priority
    task: asyncio.Task[list[Outcome]]


class QueueRules(RuleBasedStateMachine):
    """Callers start and are cancelled while the engine runs one batch at a time, with more or less memory."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = SteppedEngine()
        self.registry = CollectorRegistry()
        self.queue = BatchQueue(Engines([self.engine]), EmbeddingMetrics(self.registry), MAX_BATCH, CAPACITY)
        self.runner = asyncio.Runner()
        self.runner.run(self.queue.start())
        self.requests: list[Request] = []
        self.healths: dict[int, Health] = {BLANK: "sound"}
        self.waiting: dict[Priority, list[int]] = {priority: [] for priority in Priority}
        self.turn = Priority.SEARCH
        self.in_engine: list[int] = []
        self.calls_seen = 0  # before the running one
        self.dropped = 0

    @rule(
        healths=st.lists(st.sampled_from(("sound", "sound", "sound", *_HEALTHS)), min_size=1, max_size=15),
        priority=st.sampled_from(Priority),
    )
    def a_caller_comes(self, healths: list[Health], priority: Priority) -> None:
        accepted = sum(len(request.numbers) for request in self.open() if request.priority is priority)
        numbers = range(len(self.healths), len(self.healths) + len(healths))
        self.healths |= dict(zip(numbers, healths, strict=True))
        crops = [crop(number, health) for number, health in zip(numbers, healths, strict=True)]
        task = self.runner.get_loop().create_task(self.queue.embed(crops, priority))
        self.let_callers_run()
        if accepted and accepted + len(numbers) > CAPACITY:
            assert isinstance(task.exception(), QueueFull)
            return
        self.requests.append(Request(numbers, priority, task))
        self.waiting[priority] += numbers
        if not self.in_engine:
            self.a_batch_is_taken()

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def a_caller_leaves(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.open()))
        request.task.cancel()
        self.until(request.task.done)
        assert request.task.cancelled()
        kept = [number for number in self.waiting[request.priority] if number not in request.numbers]
        self.dropped += len(self.waiting[request.priority]) - len(kept)
        self.waiting[request.priority] = kept

    @precondition(lambda self: self.in_engine)
    @rule(largest_batch=st.sampled_from((1, 2, 3, 5, MAX_BATCH)))
    def the_engine_finishes_a_batch(self, largest_batch: int) -> None:
        calls = self.calls_for(self.in_engine, largest_batch)
        if all(self.healths[number] != "sound" for number in self.in_engine):
            calls.append([BLANK])  # distinguishes a broken engine from bad crops
        more = any(self.waiting.values())
        first, self.calls_seen = self.calls_seen, self.calls_seen + len(calls)
        self.engine.largest_batch = largest_batch
        self.engine.permits.release(len(calls))
        self.until(lambda: len(self.engine.calls) == self.calls_seen + more)
        assert self.engine.calls[first : self.calls_seen] == calls
        self.in_engine = []
        if more:
            self.a_batch_is_taken()
        self.until(lambda: all(request.task.done() for request in self.requests if self.is_complete(request)))

    @invariant()
    def callers_are_answered_rightly_once_all_their_crops_are_embedded_and_not_before(self) -> None:
        self.let_callers_run()
        for request in self.requests:
            if not request.task.cancelled():
                assert request.task.done() == self.is_complete(request)
                if request.task.done():
                    assert numbers_of(request.task.result()) == self.right_answer(request)

    @invariant()
    def what_waits_and_what_was_dropped_is_counted(self) -> None:
        assert self.registry.get_sample_value("passerby_embedding_dropped_total") == self.dropped
        waiting = sum(map(len, self.waiting.values()))
        assert self.registry.get_sample_value("passerby_embedding_queue_length") == waiting

    @invariant()
    def the_queue_is_never_in_trouble(self) -> None:
        assert self.queue.trouble is None

    def teardown(self) -> None:
        self.engine.permits.release(10_000)
        self.runner.run(self.queue.stop())
        self.let_callers_run()
        for request in self.requests:
            assert request.task.done()
            if not request.task.cancelled():
                assert numbers_of(request.task.result()) == self.right_answer(request)
        self.runner.close()

    # the model

    def a_batch_is_taken(self) -> None:
        """A batch has one priority, first in first out; batches alternate where both priorities are queued."""
        self.until(lambda: len(self.engine.calls) > self.calls_seen)
        self.in_engine = self.engine.calls[self.calls_seen]
        other = Priority.BULK if self.turn is Priority.SEARCH else Priority.SEARCH
        priority, self.turn = (self.turn, other) if self.waiting[self.turn] else (other, self.turn)
        assert self.in_engine == self.waiting[priority][:MAX_BATCH]
        self.waiting[priority] = self.waiting[priority][MAX_BATCH:]

    def calls_for(self, batch: list[int], largest_batch: int) -> list[list[int]]:
        """The calls of the engine until each crop of a batch has its outcome."""
        fails = len(batch) > largest_batch or any(self.healths[number] == "raises" for number in batch)
        if not fails or len(batch) == 1:
            return [batch]
        half = len(batch) // 2
        return [batch, *self.calls_for(batch[:half], largest_batch), *self.calls_for(batch[half:], largest_batch)]

    def open(self) -> list[Request]:
        return [request for request in self.requests if not request.task.done()]

    def is_complete(self, request: Request) -> bool:
        return not any(
            number in self.waiting[request.priority] or number in self.in_engine for number in request.numbers
        )

    def right_answer(self, request: Request) -> list[int | None]:
        return [number if self.healths[number] == "sound" else None for number in request.numbers]

    def let_callers_run(self) -> None:
        self.runner.run(asyncio.sleep(0.0))
        self.runner.run(asyncio.sleep(0.0))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            self.runner.run(asyncio.sleep(0.0005))


def numbers_of(outcomes: Sequence[Outcome]) -> list[int | None]:
    """The number in each crop's parts; None for an error."""
    return [None if isinstance(outcome, EngineError) else int(outcome.max()) for outcome in outcomes]


QueueRules.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # shrinking takes minutes, as each step may time out
    print_blob=True,
)
TestQueueRules = QueueRules.TestCase
