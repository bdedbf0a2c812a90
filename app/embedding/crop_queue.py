"""The queue of decoded crops, from which engine workers take batches."""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Owner = TypeVar("Owner")


class Priority(IntEnum):
    """The priorities of crops. Searches go ahead of bulk work, as an operator waits for them."""

    SEARCH = 0
    BULK = 1


@dataclass(frozen=True, eq=False)
class QueuedCrop(Generic[Owner]):
    """A crop `(height, width, 3)` uint8, its owner and its position there; since: when it was queued, in seconds."""

    pixels: NDArray[np.uint8]
    priority: Priority
    owner: Owner
    position: int
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, eq=False)
class Batch(Generic[Owner]):
    """Crops for one call of an engine. pixels: `(N, height, width, 3)`; single: whether all other workers are idle and
    nothing else is queued.
    """

    crops: list[QueuedCrop[Owner]]
    pixels: NDArray[np.uint8]
    single: bool


class CropQueue(Generic[Owner]):
    """A thread-safe queue of crops with two priorities.

    A batch is everything queued when a worker becomes free; idle workers split it evenly. All crops of a batch have one
    priority, so a search does not wait for bulk crops in its batch. If both priorities are queued, batches alternate,
    searches first, so neither starves. Pixels are copied into the next batch while the engines run.
    """

    def __init__(self, size: tuple[int, int], max_batch: int, workers: int = 1) -> None:
        """size: (height, width) in pixels; workers: the number of threads that take batches."""
        self._queues = {priority: _PriorityQueue[Owner](size, max_batch) for priority in Priority}
        self._preferred = Priority.SEARCH
        self._workers = workers
        self._idle = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    @property
    def closed(self) -> bool:
        """Whether `close` was called; crops that are put later may not be taken."""
        return self._closed

    def put(self, crops: Sequence[QueuedCrop[Owner]]) -> None:
        """Queue crops, in this order."""
        with self._changed:
            for crop in crops:
                self._queues[crop.priority].waiting.append(crop)
            self._fill()
            self._changed.notify_all()

    def prepare(self) -> None:
        """Copy the pixels of the next batches."""
        with self._changed:
            self._fill()

    def drop(self, owner: Owner) -> int:
        """Remove an owner's queued crops; returns their number."""
        with self._changed:
            return sum(queue.drop(owner) for queue in self._queues.values())

    def take(self) -> Batch[Owner] | None:
        """Block until crops are queued, and return the next batch; None once the queue is closed and empty."""
        with self._changed:
            self._idle += 1
            while not self._count():
                if self._closed:
                    return None
                self._changed.wait()
            queue = self._queues[self._next_priority()]
            crops, pixels = queue.take(math.ceil(len(queue) / self._idle))
            self._idle -= 1
            return Batch(crops, pixels, single=self._idle == self._workers - 1 and not self._count())

    def close(self) -> None:
        """Accept no more crops: `take` returns the queued ones, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _count(self) -> int:
        return sum(map(len, self._queues.values()))

    def _fill(self) -> None:
        for queue in self._queues.values():
            queue.fill()

    def _next_priority(self) -> Priority:
        """The preferred priority, or the other one if that has no crops. A priority that is served loses preference."""
        preferred = self._preferred
        other = Priority.BULK if preferred is Priority.SEARCH else Priority.SEARCH
        if not self._queues[preferred]:
            return other
        self._preferred = other
        return preferred


class _PriorityQueue(Generic[Owner]):
    """Crops of one priority; the first ones are copied into the buffer of the next batch."""

    def __init__(self, size: tuple[int, int], max_batch: int) -> None:
        self.waiting: deque[QueuedCrop[Owner]] = deque()
        self._next = _BatchBuffer[Owner](size, max_batch)

    def __len__(self) -> int:
        return len(self._next.crops) + len(self.waiting)

    def fill(self) -> None:
        while self.waiting and not self._next.full:
            self._next.append(self.waiting.popleft())

    def take(self, count: int) -> tuple[list[QueuedCrop[Owner]], NDArray[np.uint8]]:
        """The first `count` crops, at most one batch."""
        self.fill()
        taken, self._next = self._next, self._next.split(count)
        return taken.crops, taken.pixels

    def drop(self, owner: Owner) -> int:
        before = len(self)
        self._next.remove(owner)
        self.waiting = deque(crop for crop in self.waiting if crop.owner is not owner)
        return before - len(self)


class _BatchBuffer(Generic[Owner]):
    """The pixels of a batch in one array, filled crop by crop."""

    def __init__(self, size: tuple[int, int], max_batch: int) -> None:
        self.crops: list[QueuedCrop[Owner]] = []
        self._size = size
        self._max_batch = max_batch
        self._pixels = np.empty((max_batch, *size, 3), dtype=np.uint8)

    @property
    def full(self) -> bool:
        return len(self.crops) == self._max_batch

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The filled rows."""
        return self._pixels[: len(self.crops)]

    def append(self, crop: QueuedCrop[Owner]) -> None:
        self._pixels[len(self.crops)] = crop.pixels
        self.crops.append(crop)

    def remove(self, owner: Owner) -> None:
        kept = [crop for crop in self.crops if crop.owner is not owner]
        if len(kept) < len(self.crops):
            self.crops = []
            for crop in kept:
                self.append(crop)

    def split(self, count: int) -> "_BatchBuffer[Owner]":
        """Keep the first `count` crops; the rest moves to a new buffer."""
        rest = _BatchBuffer[Owner](self._size, self._max_batch)
        for crop in self.crops[count:]:
            rest.append(crop)
        del self.crops[count:]
        return rest
