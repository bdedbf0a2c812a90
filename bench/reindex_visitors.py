"""Clients that post, delete and search while a service's model changes, and check every answer."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.clients import Client, NotAnswered, multipart
from bench.pictures import Pictures
from bench.visiting import REST, asked, listed, required, visiting

ALIKE = 0.999
"""Least similarity of a crop to its own picture, which it has only where both were embedded by the same model."""

_BATCH, _BATCHES_A_CAMERA, _MOST_MATCHES = 3, 100, 1000


@dataclass(frozen=True)
class Kept:
    """An acknowledged crop."""

    track: str
    camera: str
    content: bytes


@dataclass(frozen=True)
class Searched:
    """A search: when it was asked (seconds of the monotonic clock), how long it took, and by which model."""

    at: float
    seconds: float
    model_id: str


@dataclass
class Ledger:
    """The shared state of the visitors. Thread-safe.

    delete_requested: crops with a delete request; deleted: those with an acknowledged one.
    """

    kept: dict[str, Kept] = field(default_factory=dict)
    delete_requested: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    searches: list[Searched] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def random_crop(self, rng: random.Random) -> tuple[str, Kept] | None:
        """A random crop without a delete request; None if there is none."""
        with self.lock:
            crop_ids = self.kept.keys() - self.delete_requested
            crop_id = rng.choice(sorted(crop_ids)) if crop_ids else None
            return None if crop_id is None else (crop_id, self.kept[crop_id])

    def wrong(self, what: str) -> None:
        """Record a violation."""
        with self.lock:
            self.violations.append(what)


class Visitors:
    """Threads that visit services, which may be killed and come back, at whatever ports the list has by then."""

    def __init__(self, ports: list[int], pictures: Pictures, seed: int, most_crops: int = 10_000) -> None:
        """most_crops: with more crops, visitors delete more than they post."""
        self.ledger = Ledger()
        self._ports = ports
        self._pictures = pictures
        self._most_crops = most_crops
        rng = random.Random(seed)
        kinds = [self._post, self._post, self._delete, self._search, self._search]
        self._works = [
            partial(self._visit, kind, number, random.Random(rng.random())) for number, kind in enumerate(kinds)
        ]
        self._batches = dict.fromkeys(range(len(kinds)), 0)

    @contextmanager
    def visiting(self) -> Iterator[Ledger]:
        """Visit until the block ends."""
        with visiting(self._works, self.ledger.wrong):
            yield self.ledger

    def _visit(self, kind: Any, number: int, rng: random.Random) -> None:
        try:
            with closing(Client(rng.choice(self._ports))) as client:
                kind(client, number, rng)
        except NotAnswered:  # the service was killed; unacknowledged requests may have been stored or not
            time.sleep(REST)

    def _post(self, client: Client, number: int, rng: random.Random) -> None:
        if len(self.ledger.kept) - len(self.ledger.deleted) >= self._most_crops:
            time.sleep(REST)
            return
        self._batches[number] += 1
        camera = f"{number}-{self._batches[number] // _BATCHES_A_CAMERA}"
        track = f"{number}-{self._batches[number]}"
        contents = self._pictures.take(_BATCH)
        fields = {"camera_id": camera, "captured_at": "2026-05-04T17:30:00Z", "track_id": track}
        items = asked(client, "/embed", multipart(contents, fields), 201)["items"]
        new = {item["crop"]["id"]: Kept(track, camera, one) for item, one in zip(items, contents, strict=True)}
        with self.ledger.lock:
            self.ledger.kept |= new
        crop_id = rng.choice(sorted(new))
        self._check_found(client, crop_id, new[crop_id])

    def _search(self, client: Client, _: int, rng: random.Random) -> None:
        crop = self.ledger.random_crop(rng)
        if crop is None:
            time.sleep(REST)
            return
        self._check_found(client, *crop)

    def _delete(self, client: Client, _: int, rng: random.Random) -> None:
        crop = self.ledger.random_crop(rng)
        if crop is None or len(self.ledger.kept) - len(self.ledger.deleted) < self._most_crops // 2:
            time.sleep(REST)
            return
        crop_id, one = crop
        with self.ledger.lock:
            self.ledger.delete_requested.add(crop_id)
        required(client.send("DELETE", f"/crops/{crop_id}"), 204, 404)  # a race of two visitors gives 404 to one
        with self.ledger.lock:
            self.ledger.deleted.add(crop_id)
        self._asked_search(client, one.content, track_id=one.track)

    def _check_found(self, client: Client, crop_id: str, one: Kept) -> None:
        """Whether a crop is found by its own picture, among everything and in its track."""
        found = self._asked_search(client, one.content, track_id=one.track)
        if crop_id not in found:
            if crop_id not in self.ledger.delete_requested:
                self.ledger.wrong(f"{crop_id} was acknowledged, but only {found} were found")
        elif found[crop_id] < ALIKE:
            self.ledger.wrong(f"{crop_id} has a similarity of {found[crop_id]} to its own picture")
        best = max(self._asked_search(client, one.content).values(), default=0.0)
        if best < ALIKE and crop_id not in self.ledger.delete_requested:
            self.ledger.wrong(f"the best match of {crop_id}'s own picture has a similarity of {best}")

    def _asked_search(self, client: Client, content: bytes, **fields: str) -> dict[str, float]:
        """The similarities of the matches, by their crops' ids; deleted crops and duplicates are violations."""
        with self.ledger.lock:
            deleted = frozenset(self.ledger.deleted)
        began = time.monotonic()
        form = multipart([content], {"top_k": "20", "consistency": "session", **fields})
        answer = asked(client, "/search", form, 200)
        seconds = time.monotonic() - began
        crop_ids = [match["crop"]["id"] for match in answer["matches"]]
        if gone := deleted & set(crop_ids):
            self.ledger.wrong(f"{gone} were found after they had been deleted")
        if len(set(crop_ids)) < len(crop_ids):
            self.ledger.wrong(f"a match came twice: {crop_ids}")
        with self.ledger.lock:
            self.ledger.searches.append(Searched(began, seconds, answer["model_id"]))
        return {match["crop"]["id"]: match["similarity"] for match in answer["matches"]}


def check_gallery(port: int, ledger: Ledger) -> None:
    """Whether a service lists every kept crop once and none that was deleted, and finds exactly those that it lists."""
    with closing(Client(port)) as client:
        in_gallery = [one["id"] for one in listed(lambda path: client.send("GET", path).body)]
        picture = next(iter(ledger.kept.values())).content
        found: list[str] = []
        for camera in sorted({one.camera for one in ledger.kept.values()}):
            fields = {"top_k": str(_MOST_MATCHES), "camera_ids": camera, "consistency": "session"}
            answer = asked(client, "/search", multipart([picture], fields), 200)
            found += [match["crop"]["id"] for match in answer["matches"]]
    lost = ledger.kept.keys() - ledger.delete_requested - set(in_gallery)
    if lost or ledger.deleted & set(in_gallery):
        ledger.wrong(
            f"port {port} lost {sorted(lost)[:5]} or lists deleted {sorted(ledger.deleted & set(in_gallery))[:5]}"
        )
    if sorted(found) != sorted(in_gallery):
        differing = set(found) ^ set(in_gallery)
        ledger.wrong(
            f"port {port} finds {len(found)} crops and lists {len(in_gallery)}, differing in {list(differing)[:5]}"
        )
