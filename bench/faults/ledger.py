"""What is known of every crop that a service was given while answers get lost: is it there, gone, or unknown?"""

import hashlib
import random
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

import numpy as np
import PIL.Image

_PATCH = 8  # pixels; the tiny checkpoint's cells have as many

NO_ANSWER = 0
"""Stands for the HTTP status where the connection broke."""


@lru_cache(maxsize=2_000)
def jpeg(number: int) -> bytes:
    """The picture of a crop: patches of random colours, for the tiny checkpoint like no other number's."""
    colours = np.random.default_rng(number).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    file = BytesIO()
    PIL.Image.fromarray(np.kron(colours, np.ones((_PATCH, _PATCH, 1), np.uint8))).save(file, "JPEG")
    return file.getvalue()


def sha256_of(number: int) -> str:
    """What names a crop's picture in the image store."""
    return hashlib.sha256(jpeg(number)).hexdigest()


@dataclass
class Ledger:
    """Every crop is in one of these places. Its methods may be called by any thread.

    kept: acknowledged, numbers of their pictures by crop id. posted: given to the service without an answer so far, or
    ever. leaving: the same for deletions. deleted: acknowledged as deleted. absent: numbers that never got in.
    troubles: how often which HTTP status was answered that is no success, this round.
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
        """Numbers of crops that are posted now: new ones, now and then some that never got in."""
        with self._lock:
            numbers = [rng.choice(sorted(self.absent))] if self.absent and rng.random() < 0.3 else []
            numbers += range(self._next, self._next + count - len(numbers))
            self._next += count
            self.absent -= set(numbers)
            self.posted |= set(numbers)
            return numbers

    def keep(self, crops: Mapping[str, int]) -> None:
        """Note crops that were acknowledged."""
        with self._lock:
            self.posted -= set(crops.values())
            self.kept |= crops

    def leave(self, rng: random.Random) -> tuple[str, int] | None:
        """A crop whose deletion is asked for now; None where there is none."""
        with self._lock:
            if not self.kept:
                return None
            crop_id = rng.choice(list(self.kept))
            number = self.leaving[crop_id] = self.kept.pop(crop_id)
            return crop_id, number

    def delete(self, crop_ids: Iterable[str]) -> None:
        """Note crops whose deletion was acknowledged."""
        with self._lock:
            for crop_id in crop_ids:
                self.deleted[crop_id] = self.leaving.pop(crop_id)

    def one_kept(self, rng: random.Random) -> tuple[str, int] | None:
        """Any of the crops that are kept; None where there is none."""
        with self._lock:
            return rng.choice(list(self.kept.items())) if self.kept else None

    def is_kept(self, crop_id: str) -> bool:
        """Whether a crop is acknowledged and nobody asks for its deletion."""
        with self._lock:
            return crop_id in self.kept

    def gone(self) -> frozenset[str]:
        """The crops that must never be seen again."""
        with self._lock:
            return frozenset(self.deleted)

    def query(self, content: bytes) -> None:
        """Note a picture that is searched with, which the service keeps."""
        with self._lock:
            self.queried.add(hashlib.sha256(content).hexdigest())

    def trouble(self, status: int) -> None:
        """Note an answer that was no success, or none at all."""
        with self._lock:
            self.troubles[status] = self.troubles.get(status, 0) + 1

    def wrong(self, what: str) -> None:
        """Note that something was not as it must be."""
        with self._lock:
            self.violations.append(what)

    def settle(self, listed: Mapping[str, int]) -> None:
        """Learn from a list of all crops, with their pictures' numbers, what became of what is unknown.

        What must be there and is not, and what is there and must not be, is a violation.
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
                self.violations.append(f"lost: {_some(self.kept[one] for one in lost)}")
            if strange:
                self.violations.append(f"listed, but deleted or never stored: {_some(strange.values())}")
            for crop_id in lost:  # told once
                del self.kept[crop_id]
            self.kept |= strange

    def take_troubles(self) -> dict[int, int]:
        """The troubles so far, which are forgotten then."""
        with self._lock:
            taken, self.troubles = self.troubles, {}
            return taken


def _some(numbers: Iterable[int]) -> str:
    """How many, and a few of them."""
    numbers = sorted(numbers)
    return f"{len(numbers)} crops, such as {numbers[:5]}"


def unseen(wanted: Collection[str], seen: Collection[str]) -> tuple[set[str], set[str]]:
    """What is wanted and not seen, and what is seen and not wanted."""
    return set(wanted) - set(seen), set(seen) - set(wanted)
