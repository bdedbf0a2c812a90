"""The expected state of every posted crop while answers get lost: stored, deleted or unknown."""

import hashlib
import random
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

import numpy as np
import PIL.Image

_PATCH = 8  # pixels, the cell size of the tiny checkpoint

NO_ANSWER = 0
"""The status of a request whose connection broke."""


@lru_cache(maxsize=2_000)
def jpeg(number: int) -> bytes:
    """The picture of a crop: patches of random colours, distinct for the tiny checkpoint."""
    colours = np.random.default_rng(number).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    file = BytesIO()
    PIL.Image.fromarray(np.kron(colours, np.ones((_PATCH, _PATCH, 1), np.uint8))).save(file, "JPEG")
    return file.getvalue()


def sha256_of(number: int) -> str:
    """The name of a crop's picture in the image store."""
    return hashlib.sha256(jpeg(number)).hexdigest()


@dataclass
class Ledger:
    """The state of every crop; each is in one of these collections. Thread-safe.

    kept: acknowledged, numbers of their pictures by crop id. posted: sent without an answer
    yet. leaving: the same for deletions. deleted: acknowledged as deleted. absent: numbers that were never stored.
    troubles: the counts of error statuses in this round.
    """

    kept: dict[str, int] = field(default_factory=dict)
    posted: set[int] = field(default_factory=set)
    leaving: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    absent: set[int] = field(default_factory=set)
    queried: set[str] = field(default_factory=set)
    troubles: dict[int, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, rng: random.Random, count: int) -> list[int]:
        """Numbers of crops to post: new ones, sometimes also one that was never stored."""
        with self._lock:
            numbers = [rng.choice(sorted(self.absent))] if self.absent and rng.random() < 0.3 else []
            numbers += range(self._next, self._next + count - len(numbers))
            self._next += count
            self.absent -= set(numbers)
            self.posted |= set(numbers)
            return numbers

    def keep(self, crops: Mapping[str, int]) -> None:
        """Record acknowledged crops."""
        with self._lock:
            self.posted -= set(crops.values())
            self.kept |= crops

    def leave(self, rng: random.Random) -> tuple[str, int] | None:
        """A random crop to delete; None if there is none."""
        with self._lock:
            if not self.kept:
                return None
            crop_id = rng.choice(list(self.kept))
            number = self.leaving[crop_id] = self.kept.pop(crop_id)
            return crop_id, number

    def delete(self, crop_ids: Iterable[str]) -> None:
        """Record acknowledged deletions."""
        with self._lock:
            for crop_id in crop_ids:
                self.deleted[crop_id] = self.leaving.pop(crop_id)

    def one_kept(self, rng: random.Random) -> tuple[str, int] | None:
        """A random kept crop; None if there is none."""
        with self._lock:
            return rng.choice(list(self.kept.items())) if self.kept else None

    def is_kept(self, crop_id: str) -> bool:
        """Whether a crop is acknowledged and not requested to be deleted."""
        with self._lock:
            return crop_id in self.kept

    def gone(self) -> frozenset[str]:
        """The deleted crops, which must never be served again."""
        with self._lock:
            return frozenset(self.deleted)

    def query(self, content: bytes) -> None:
        """Record a query picture, which the service stores."""
        with self._lock:
            self.queried.add(hashlib.sha256(content).hexdigest())

    def trouble(self, status: int) -> None:
        """Count a failed or missing answer."""
        with self._lock:
            self.troubles[status] = self.troubles.get(status, 0) + 1

    def wrong(self, what: str) -> None:
        """Record a violation."""
        with self._lock:
            self.violations.append(what)

    def settle(self, listed: Mapping[str, int]) -> None:
        """Resolve unknown states by a list of all crops, with the numbers of their pictures.

        Missing and unexpected crops are violations.
        """
        with self._lock:
            arrived = {crop_id: number for crop_id, number in listed.items() if number in self.posted}
            stayed = {crop_id: number for crop_id, number in listed.items() if self.leaving.get(crop_id) == number}
            lost = self.kept.keys() - listed.keys()
            strange = {
                crop_id: number
                for crop_id, number in listed.items()
                if self.kept.get(crop_id) != number and crop_id not in arrived and crop_id not in stayed
            }
            self.absent |= self.posted - set(arrived.values())
            self.posted = set()
            self.deleted |= {crop_id: number for crop_id, number in self.leaving.items() if crop_id not in stayed}
            self.leaving = {}
            self.kept |= arrived | stayed
            if len(set(listed.values())) < len(listed):
                self.violations.append("a picture became two crops")
            if lost:
                self.violations.append(f"lost: {_shortened(self.kept[one] for one in lost)}")
            if strange:
                self.violations.append(f"listed, but deleted or never stored: {_shortened(strange.values())}")
            for crop_id in lost:  # report each once
                del self.kept[crop_id]
            self.kept |= strange

    def take_troubles(self) -> dict[int, int]:
        """Return and reset the troubles."""
        with self._lock:
            taken, self.troubles = self.troubles, {}
            return taken


def _shortened(numbers: Iterable[int]) -> str:
    """The count with a few examples."""
    numbers = sorted(numbers)
    return f"{len(numbers)} crops, such as {numbers[:5]}"


def unseen(wanted: Collection[str], seen: Collection[str]) -> tuple[set[str], set[str]]:
    """The missing and the unexpected ids."""
    return set(wanted) - set(seen), set(seen) - set(wanted)
