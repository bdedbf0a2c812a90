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
    """Crops for one call of an engine; single: whether all other workers are idle and nothing else is queued."""

    crops: list[QueuedCrop[Owner]]
    single: bool

    def pixels(self) -> NDArray[np.uint8]:
        """`(N, height, width, 3)`: a copy of the crops' pixels."""
        return np.stack([crop.pixels for crop in self.crops])


class CropQueue(Generic[Owner]):
    """A thread-safe queue of crops with two priorities.

    A batch is everything queued when a worker becomes free; idle workers split it evenly. All crops of a batch have one
    priority, so a search does not wait for bulk crops in its batch. If both priorities are queued, batches alternate,
    searches first, so neither starves.
    """

    def __init__(self, max_batch: int, workers: int = 1) -> None:
        """workers: the number of threads that take batches."""
        self._queues = {priority: deque[QueuedCrop[Owner]]() for priority in Priority}
        self._preferred = Priority.SEARCH
        self._max_batch = max_batch
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

    @property
    def idle(self) -> int:
        """How many workers wait in `take`."""
        return self._idle

    def put(self, crops: Sequence[QueuedCrop[Owner]]) -> None:
        """Queue crops, in this order."""
        with self._changed:
            for crop in crops:
                self._queues[crop.priority].append(crop)
            self._changed.notify_all()

    def drop(self, owner: Owner) -> int:
        """Remove an owner's queued crops; returns their number."""
        with self._changed:
            before = self._count()
            for priority, queue in self._queues.items():
                self._queues[priority] = deque(crop for crop in queue if crop.owner is not owner)
            return before - self._count()

    def take(self) -> Batch[Owner] | None:
        """Block until crops are queued, and return the next batch; None once the queue is closed and empty."""
        with self._changed:
            self._idle += 1
            while not self._count():
                if self._closed:
                    return None
                self._changed.wait()
            queue = self._queues[self._next_priority()]
            count = min(self._max_batch, math.ceil(len(queue) / self._idle))
            crops = [queue.popleft() for _ in range(count)]
            self._idle -= 1
            return Batch(crops, single=self._idle == self._workers - 1 and not self._count())

    def close(self) -> None:
        """Accept no more crops: `take` returns the queued ones, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _count(self) -> int:
        return sum(map(len, self._queues.values()))

    def _next_priority(self) -> Priority:
        """The preferred priority, or the other one if that has no crops. A priority that is served loses preference."""
        preferred = self._preferred
        other = Priority.BULK if preferred is Priority.SEARCH else Priority.SEARCH
        if not self._queues[preferred]:
            return other
        self._preferred = other
        return preferred
