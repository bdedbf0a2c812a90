"""The room where crops wait for the engine, and where the next batch is laid out while one runs."""

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
    """Searches go ahead of bulk work, for somebody looks at the screen."""

    SEARCH = 0
    BULK = 1


@dataclass(frozen=True, eq=False)
class WaitingCrop(Generic[Owner]):
    """A crop `(height, width, 3)` uint8 of an owner, who knows it by its position; `since` in seconds."""

    pixels: NDArray[np.uint8]
    priority: Priority
    owner: Owner
    position: int
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, eq=False)
class Batch(Generic[Owner]):
    """Crops for one call of an engine; `pixels` is `(N, height, width, 3)`, `lone` whether no other batch is under way
    or could be.
    """

    crops: list[WaitingCrop[Owner]]
    pixels: NDArray[np.uint8]
    lone: bool


class WaitingRoom(Generic[Owner]):
    """Crops of two priorities on their way into batches. Any thread may call.

    A batch is what waits at the moment when it is taken, so it is never late and never emptier than it could
    be; takers that idle at that moment share it. Its pixels are nevertheless copied together before that, while
    the engines work: each priority is laid out at once up to its limit, and the other rows stay free for the
    other priority until the batch is taken. So a search that comes last still travels with the next batch, ahead
    of bulk work that came first; and bulk work has its share of every batch, however many searches come.
    """

    def __init__(self, size: tuple[int, int], max_batch: int, takers: int = 1) -> None:
        """`size` is (height, width) in pixels; `takers` how many threads take batches."""
        if max_batch < 2:
            raise ValueError(f"max_batch is {max_batch}: a batch needs room for both priorities, 2 or more")
        self._limit = max_batch - max(1, max_batch // 4)
        self._waiting: dict[Priority, deque[WaitingCrop[Owner]]] = {priority: deque() for priority in Priority}
        self._size = size
        self._next = _Layout[Owner](size, max_batch)
        self._takers = takers
        self._idle = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, so that what is put is not sure to be taken."""
        return self._closed

    def put(self, crops: Sequence[WaitingCrop[Owner]]) -> None:
        """Let crops wait, in this order."""
        with self._changed:
            for crop in crops:
                self._waiting[crop.priority].append(crop)
            self._lay_out(self._limit)
            self._changed.notify_all()

    def prepare(self) -> None:
        """Lay out what waits as far as that shuts nobody out of the next batch."""
        with self._changed:
            self._lay_out(self._limit)

    def drop(self, owner: Owner) -> int:
        """Forget an owner's crops that were not taken, and say how many they were."""
        with self._changed:
            dropped = self._next.remove(owner)
            for priority, waiting in self._waiting.items():
                kept = deque(crop for crop in waiting if crop.owner is not owner)
                dropped += len(waiting) - len(kept)
                self._waiting[priority] = kept
            return dropped

    def take(self) -> Batch[Owner] | None:
        """The next batch as soon as anything waits; None once the room is closed and empty."""
        with self._changed:
            self._idle += 1
            while not self._lay_out(self._limit):
                if self._closed:
                    return None
                self._changed.wait()
            share = math.ceil(self._count() / self._idle)
            self._idle -= 1
            self._lay_out(self._next.max_batch)
            taken, self._next = self._next, self._next.split(share)
            lone = self._idle == self._takers - 1 and not self._count()
            return Batch(taken.crops, taken.pixels, lone)

    def close(self) -> None:
        """No crop comes any more: `take` hands out what waits, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _count(self) -> int:
        return len(self._next.crops) + sum(map(len, self._waiting.values()))

    def _lay_out(self, limit: int) -> bool:
        """Fill the next batch with up to `limit` crops of each priority, and say whether there are any in it."""
        for priority, waiting in self._waiting.items():
            while waiting and self._next.has_room(priority, limit):
                self._next.append(waiting.popleft())
        return bool(self._next.crops)


class _Layout(Generic[Owner]):
    """Rows of a batch to be."""

    def __init__(self, size: tuple[int, int], max_batch: int) -> None:
        self.max_batch = max_batch
        self.crops: list[WaitingCrop[Owner]] = []
        self._size = size
        self._pixels = np.empty((max_batch, *size, 3), dtype=np.uint8)
        self._count = dict.fromkeys(Priority, 0)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The rows that hold crops."""
        return self._pixels[: len(self.crops)]

    def has_room(self, priority: Priority, limit: int) -> bool:
        return len(self.crops) < self.max_batch and self._count[priority] < limit

    def append(self, crop: WaitingCrop[Owner]) -> None:
        self._pixels[len(self.crops)] = crop.pixels
        self.crops.append(crop)
        self._count[crop.priority] += 1

    def remove(self, owner: Owner) -> int:
        kept = [crop for crop in self.crops if crop.owner is not owner]
        removed = len(self.crops) - len(kept)
        if removed:
            self._clear()
            for crop in kept:
                self.append(crop)
        return removed

    def split(self, count: int) -> "_Layout[Owner]":
        """Keep the first `count` crops; the others go to a new layout."""
        rest = _Layout[Owner](self._size, self.max_batch)
        for crop in self.crops[count:]:
            rest.append(crop)
        del self.crops[count:]
        return rest

    def _clear(self) -> None:
        self.crops = []
        self._count = dict.fromkeys(Priority, 0)
