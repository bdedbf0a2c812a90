"""The state of every posted crop as far as the clients know: stored, deleted, or unknown for lack of an answer."""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

import numpy as np
import PIL.Image

_PATCH = 8  # pixels, as in the tiny checkpoint

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
    """The state of every crop, by its picture's number or by crop id with that number. Thread-safe.

    Each crop is in one of: kept (acknowledged), posted (no answer yet), deleting (no answer to the deletion yet),
    deleted (acknowledged), not_stored (its post failed). queried: SHA-256 of the query pictures. errors: counts of
    error statuses in this round.
    """

    kept: dict[str, int] = field(default_factory=dict)
    posted: set[int] = field(default_factory=set)
    deleting: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    not_stored: set[int] = field(default_factory=set)
    queried: set[str] = field(default_factory=set)
    errors: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, rng: random.Random, count: int) -> list[int]:
        """Numbers of crops to post: new ones, sometimes with one whose post failed."""
        with self._lock:
            numbers = [rng.choice(sorted(self.not_stored))] if self.not_stored and rng.random() < 0.3 else []
            numbers += range(self._next, self._next + count - len(numbers))
            self._next += count
            self.not_stored -= set(numbers)
            self.posted |= set(numbers)
            return numbers

    def keep(self, crops: Mapping[str, int]) -> None:
        """Record acknowledged crops."""
        with self._lock:
            self.posted -= set(crops.values())
            self.kept |= crops

    def take_for_deletion(self, rng: random.Random) -> tuple[str, int] | None:
        """The id and number of a random crop to delete; None if none is kept."""
        with self._lock:
            if not self.kept:
                return None
            crop_id = rng.choice(list(self.kept))
            number = self.deleting[crop_id] = self.kept.pop(crop_id)
            return crop_id, number

    def delete(self, crop_id: str) -> None:
        """Record an acknowledged deletion."""
        with self._lock:
            self.deleted[crop_id] = self.deleting.pop(crop_id)

    def random_kept(self, rng: random.Random) -> tuple[str, int] | None:
        """The id and number of a random kept crop; None if there is none."""
        with self._lock:
            return rng.choice(list(self.kept.items())) if self.kept else None

    def is_kept(self, crop_id: str) -> bool:
        """Whether a crop is acknowledged, without a request to delete it."""
        with self._lock:
            return crop_id in self.kept

    def deleted_ids(self) -> frozenset[str]:
        """The crops that must never be served again."""
        with self._lock:
            return frozenset(self.deleted)

    def query(self, content: bytes) -> None:
        """Record a query picture, which the service stores."""
        with self._lock:
            self.queried.add(hashlib.sha256(content).hexdigest())

    def count_error(self, status: int) -> None:
        """Count a request by its unexpected status, or by NO_ANSWER."""
        with self._lock:
            self.errors[status] += 1

    def add_violation(self, violation: str) -> None:
        """Record a violation."""
        with self._lock:
            self.violations.append(violation)

    def reconcile(self, listed: Mapping[str, int]) -> None:
        """Resolve unknown states by a list of all crops, numbers by crop id.

        Missing and unexpected crops are violations.
        """
        with self._lock:
            stored = {crop_id: number for crop_id, number in listed.items() if number in self.posted}
            undeleted = {crop_id: number for crop_id, number in listed.items() if self.deleting.get(crop_id) == number}
            lost = self.kept.keys() - listed.keys()
            unexpected = {
                crop_id: number
                for crop_id, number in listed.items()
                if self.kept.get(crop_id) != number and crop_id not in stored and crop_id not in undeleted
            }
            self.not_stored |= self.posted - set(stored.values())
            self.posted = set()
            self.deleted |= {crop_id: number for crop_id, number in self.deleting.items() if crop_id not in undeleted}
            self.deleting = {}
            self.kept |= stored | undeleted
            if len(set(listed.values())) < len(listed):
                self.violations.append("a picture became two crops")
            if lost:
                self.violations.append(f"lost: {_examples(self.kept[crop_id] for crop_id in lost)}")
            if unexpected:
                self.violations.append(f"listed, but deleted or never stored: {_examples(unexpected.values())}")
            for crop_id in lost:  # report each once
                del self.kept[crop_id]
            self.kept |= unexpected

    def take_errors(self) -> Counter[int]:
        """Return and reset the counts."""
        with self._lock:
            errors, self.errors = self.errors, Counter()
            return errors


def _examples(numbers: Iterable[int]) -> str:
    """The count and a few of the numbers."""
    numbers = sorted(numbers)
    return f"{len(numbers)} crops, such as {numbers[:5]}"
