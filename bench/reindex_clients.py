"""Clients that post, delete and search while a service's model changes, and check every answer."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

from bench.client_threads import (
    MIN_SELF_SIMILARITY,
    PAUSE_SECONDS,
    client_threads,
    expect_status,
    list_crops,
    post_form,
)
from bench.clients import CAPTURED_AT, MAX_TOP_K, Client, NotAnswered, multipart
from bench.pictures import Pictures

_BATCH, _BATCHES_A_CAMERA = 3, 100


@dataclass(frozen=True)
class Crop:
    """An acknowledged crop."""

    id: str
    track: str
    camera: str
    content: bytes


@dataclass(frozen=True)
class Search:
    """at: when it was sent, in seconds of the monotonic clock; seconds: its duration; model_id: of the answer."""

    at: float
    seconds: float
    model_id: str


@dataclass
class Ledger:
    """The clients' shared state. Thread-safe.

    kept: all acknowledged crops by id; delete_requested: ids with a delete request; deleted: ids with an acknowledged
    one.
    """

    kept: dict[str, Crop] = field(default_factory=dict)
    delete_requested: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """The number of crops that are not deleted."""
        return len(self.kept) - len(self.deleted)

    def random_crop(self, rng: random.Random) -> Crop | None:
        """A random crop without a delete request; None if there is none."""
        with self.lock:
            crop_ids = self.kept.keys() - self.delete_requested
            return self.kept[rng.choice(sorted(crop_ids))] if crop_ids else None

    def add_violation(self, violation: str) -> None:
        """Record a violation."""
        with self.lock:
            self.violations.append(violation)


class Clients:
    """Client threads of services that may be killed and restarted on other ports."""

    def __init__(self, ports: list[int], pictures: Pictures, seed: int, max_crops: int = 10_000) -> None:
        """ports: of the running services; may be changed at any time. max_crops: with more, none are posted."""
        self._ledger = Ledger()
        self._ports = ports
        self._pictures = pictures
        self._max_crops = max_crops
        rng = random.Random(seed)
        kinds = [self._post, self._post, self._delete, self._search, self._search]
        self._actions = [
            partial(self._act, kind, number, random.Random(rng.random())) for number, kind in enumerate(kinds)
        ]
        self._batches = dict.fromkeys(range(len(kinds)), 0)

    @contextmanager
    def running(self) -> Iterator[Ledger]:
        """Post, delete and search until the block ends."""
        with client_threads(self._actions, self._ledger.add_violation):
            yield self._ledger

    def _act(self, kind: Callable[[Client, int, random.Random], bool], number: int, rng: random.Random) -> None:
        """An action of one kind over a new connection; pauses if there was nothing to do or the service is down."""
        try:
            with closing(Client(rng.choice(self._ports))) as client:
                acted = kind(client, number, rng)
        except NotAnswered:  # the service was killed; whether it executed the request is unknown
            acted = False
        if not acted:
            time.sleep(PAUSE_SECONDS)

    def _post(self, client: Client, number: int, rng: random.Random) -> bool:
        if self._ledger.size >= self._max_crops:
            return False
        self._batches[number] += 1
        camera = f"{number}-{self._batches[number] // _BATCHES_A_CAMERA}"
        track = f"{number}-{self._batches[number]}"
        contents = self._pictures.take(_BATCH)
        fields = {"camera_id": camera, "captured_at": CAPTURED_AT, "track_id": track}
        items = post_form(client, "/embed", multipart(contents, fields), 201)["items"]
        crops = [
            Crop(item["crop"]["id"], track, camera, content) for item, content in zip(items, contents, strict=True)
        ]
        with self._ledger.lock:
            self._ledger.kept |= {crop.id: crop for crop in crops}
        self._check_found(client, rng.choice(crops))
        return True

    def _search(self, client: Client, _: int, rng: random.Random) -> bool:
        crop = self._ledger.random_crop(rng)
        if crop is None:
            return False
        self._check_found(client, crop)
        return True

    def _delete(self, client: Client, _: int, rng: random.Random) -> bool:
        crop = self._ledger.random_crop(rng)
        if crop is None or self._ledger.size < self._max_crops // 2:
            return False
        with self._ledger.lock:
            self._ledger.delete_requested.add(crop.id)
        expect_status(client.send("DELETE", f"/crops/{crop.id}"), 204, 404)  # 404 if another client deleted it first
        with self._ledger.lock:
            self._ledger.deleted.add(crop.id)
        self._similarities(client, crop.content, track_id=crop.track)
        return True

    def _check_found(self, client: Client, crop: Crop) -> None:
        """Check that a crop is found by its own picture, in its track and in the whole gallery."""
        similarities = self._similarities(client, crop.content, track_id=crop.track)
        if crop.id not in similarities:
            if crop.id not in self._ledger.delete_requested:
                self._ledger.add_violation(f"{crop.id} was acknowledged, but only {similarities} were found")
        elif similarities[crop.id] < MIN_SELF_SIMILARITY:
            self._ledger.add_violation(f"{crop.id} has a similarity of {similarities[crop.id]} to its own picture")
        best = max(self._similarities(client, crop.content).values(), default=0.0)
        if best < MIN_SELF_SIMILARITY and crop.id not in self._ledger.delete_requested:
            self._ledger.add_violation(f"the best match of {crop.id}'s own picture has a similarity of {best}")

    def _similarities(self, client: Client, content: bytes, **filters: str) -> dict[str, float]:
        """The similarities of a search's matches by crop id; deleted crops and duplicates are violations."""
        with self._ledger.lock:
            deleted = frozenset(self._ledger.deleted)
        began = time.monotonic()
        form = multipart([content], {"top_k": "20", "consistency": "session", **filters})
        answer = post_form(client, "/search", form, 200)
        seconds = time.monotonic() - began
        crop_ids = [match["crop"]["id"] for match in answer["matches"]]
        if found_deleted := deleted & set(crop_ids):
            self._ledger.add_violation(f"{found_deleted} were found after they had been deleted")
        if len(set(crop_ids)) < len(crop_ids):
            self._ledger.add_violation(f"a search found a crop twice: {crop_ids}")
        with self._ledger.lock:
            self._ledger.searches.append(Search(began, seconds, answer["model_id"]))
        return {match["crop"]["id"]: match["similarity"] for match in answer["matches"]}


def check_gallery(port: int, ledger: Ledger) -> None:
    """Check that a service lists every kept crop once and no deleted one, and that searches find what it lists."""
    picture = next(iter(ledger.kept.values())).content
    found: list[str] = []
    with closing(Client(port)) as client:
        listed = [crop["id"] for crop in list_crops(lambda path: client.send("GET", path).body)]
        for camera in sorted({crop.camera for crop in ledger.kept.values()}):
            fields = {"top_k": str(MAX_TOP_K), "camera_ids": camera, "consistency": "session"}
            answer = post_form(client, "/search", multipart([picture], fields), 200)
            found += [match["crop"]["id"] for match in answer["matches"]]
    lost = ledger.kept.keys() - ledger.delete_requested - set(listed)
    deleted = ledger.deleted & set(listed)
    if lost or deleted:
        ledger.add_violation(f"port {port} lost {sorted(lost)[:5]} or lists deleted {sorted(deleted)[:5]}")
    if sorted(found) != sorted(listed):
        difference = sorted(set(found) ^ set(listed))
        ledger.add_violation(
            f"port {port} finds {len(found)} crops and lists {len(listed)}; the difference is {difference[:5]}"
        )
