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
    be; takers that idle at that moment share it. Its crops are of one priority: searches do not wait for bulk work
    beside them. Where both wait they take turns, searches first, so neither shuts the other out. Pixels are
    copied together before a batch is taken, while the engines work.
    """

    def __init__(self, size: tuple[int, int], max_batch: int, takers: int = 1) -> None:
        """`size` is (height, width) in pixels; `takers` how many threads take batches."""
        self._lines = {priority: _Line[Owner](size, max_batch) for priority in Priority}
        self._turn = Priority.SEARCH
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
                self._lines[crop.priority].waiting.append(crop)
            self._lay_out()
            self._changed.notify_all()

    def prepare(self) -> None:
        """Copy together what the next batches will be."""
        with self._changed:
            self._lay_out()

    def drop(self, owner: Owner) -> int:
        """Forget an owner's crops that were not taken, and say how many they were."""
        with self._changed:
            return sum(line.drop(owner) for line in self._lines.values())

    def take(self) -> Batch[Owner] | None:
        """The next batch as soon as anything waits; None once the room is closed and empty."""
        with self._changed:
            self._idle += 1
            while not self._count():
                if self._closed:
                    return None
                self._changed.wait()
            line = self._lines[self._next_priority()]
            crops, pixels = line.take(math.ceil(len(line) / self._idle))
            self._idle -= 1
            return Batch(crops, pixels, lone=self._idle == self._takers - 1 and not self._count())

    def close(self) -> None:
        """No crop comes any more: `take` hands out what waits, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _count(self) -> int:
        return sum(map(len, self._lines.values()))

    def _lay_out(self) -> None:
        for line in self._lines.values():
            line.lay_out()

    def _next_priority(self) -> Priority:
        """Whose turn it is; who does not wait loses it to the other, but keeps the next."""
        due = self._turn
        other = Priority.BULK if due is Priority.SEARCH else Priority.SEARCH
        if not self._lines[due]:
            return other
        self._turn = other
        return due


class _Line(Generic[Owner]):
    """Crops of one priority, the first of which are laid out as a batch already."""

    def __init__(self, size: tuple[int, int], max_batch: int) -> None:
        self.waiting: deque[WaitingCrop[Owner]] = deque()
        self._next = _Layout[Owner](size, max_batch)

    def __len__(self) -> int:
        return len(self._next.crops) + len(self.waiting)

    def lay_out(self) -> None:
        while self.waiting and not self._next.full:
            self._next.append(self.waiting.popleft())

    def take(self, count: int) -> tuple[list[WaitingCrop[Owner]], NDArray[np.uint8]]:
        """The first `count` crops, or as many of them as a batch holds."""
        self.lay_out()
        taken, self._next = self._next, self._next.split(count)
        return taken.crops, taken.pixels

    def drop(self, owner: Owner) -> int:
        before = len(self)
        self._next.remove(owner)
        self.waiting = deque(crop for crop in self.waiting if crop.owner is not owner)
        return before - len(self)


class _Layout(Generic[Owner]):
    """Rows of a batch to be."""

    def __init__(self, size: tuple[int, int], max_batch: int) -> None:
        self.crops: list[WaitingCrop[Owner]] = []
        self._size = size
        self._max_batch = max_batch
        self._pixels = np.empty((max_batch, *size, 3), dtype=np.uint8)

    @property
    def full(self) -> bool:
        return len(self.crops) == self._max_batch

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The rows that hold crops."""
        return self._pixels[: len(self.crops)]

    def append(self, crop: WaitingCrop[Owner]) -> None:
        self._pixels[len(self.crops)] = crop.pixels
        self.crops.append(crop)

    def remove(self, owner: Owner) -> None:
        kept = [crop for crop in self.crops if crop.owner is not owner]
        if len(kept) < len(self.crops):
            self.crops = []
            for crop in kept:
                self.append(crop)

    def split(self, count: int) -> "_Layout[Owner]":
        """Keep the first `count` crops; the others go to a new layout."""
        rest = _Layout[Owner](self._size, self._max_batch)
        for crop in self.crops[count:]:
            rest.append(crop)
        del self.crops[count:]
        return rest
