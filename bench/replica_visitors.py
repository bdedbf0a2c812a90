"""Clients of several services on one database, which check that the services agree in time."""

import json
import random
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.clients import Client, multipart
from bench.pictures import Pictures
from bench.visiting import REST, asked, listed, required, visiting

FOUND_WITHIN = 1.0
"""Seconds after a crop was acknowledged by one service; a search that comes later to another has to find it."""
_BATCH, _BATCHES_A_CAMERA = 4, 100
_TOP_K, _MOST_MATCHES = 20, 1000
_MANY = 2 * _TOP_K
"""Crops below which none is deleted, so that searches must always have enough matches."""


@dataclass
class Ledger:
    """The shared state of the visitors. Thread-safe.

    kept: the acknowledged crops' ids that were found everywhere; delays: seconds from an acknowledgement until the
    other service's first answer that has the crops, and until that search was sent.
    """

    kept: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    delays: list[tuple[float, float]] = field(default_factory=list)
    searches: int = 0
    posted_twice: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, crop_ids: Collection[str]) -> None:
        """Add crops that any visitor may search for and delete."""
        with self._lock:
            self.kept |= set(crop_ids)

    def take_one(self, rng: random.Random) -> str | None:
        """Remove and return a crop to delete; None if few are left."""
        with self._lock:
            if len(self.kept) < _MANY:
                return None
            crop_id = rng.choice(sorted(self.kept))
            self.kept.remove(crop_id)
            return crop_id

    def note_deleted(self, crop_id: str) -> None:
        """Record an acknowledged deletion."""
        with self._lock:
            self.deleted.add(crop_id)

    def now(self) -> tuple[int, frozenset[str]]:
        """The number of kept crops, and the deleted ones."""
        with self._lock:
            return len(self.kept), frozenset(self.deleted)

    def wrong(self, what: str) -> None:
        """Record a violation."""
        with self._lock:
            self.violations.append(what)


def visit(ports: Sequence[int], pictures: Pictures, seconds: float, seed: int) -> Ledger:
    """Post, delete and search at all services for so long, then compare them; records violations."""
    ledger = Ledger()
    rng = random.Random(seed)
    visitors = [_Visitor(number, ports, pictures, ledger, random.Random(rng.random())) for number in range(7)]
    kinds = [_Visitor.post, _Visitor.post, _Visitor.post, _Visitor.post_twice]
    kinds += [_Visitor.delete, _Visitor.search, _Visitor.search]
    works = [partial(kind, visitor) for kind, visitor in zip(kinds, visitors, strict=True)]
    with visiting(works, ledger.wrong):
        time.sleep(seconds)
    time.sleep(FOUND_WITHIN)
    cameras = {camera for visitor in visitors for camera in visitor.cameras}
    for port in ports:
        _check_gallery(port, pictures, cameras, ledger)
    return ledger


@dataclass
class _Visitor:
    """A visitor that performs random actions in a loop."""

    number: int
    ports: Sequence[int]
    pictures: Pictures
    ledger: Ledger
    rng: random.Random
    batches: int = 0
    cameras: set[str] = field(default_factory=set)

    def post(self) -> None:
        """Post crops to one service, and poll another one until it finds them."""
        with self._clients() as (writer, *readers):
            track, body = self._new_batch()
            crop_ids = _crop_ids(asked(writer, "/embed", body, 201))
            acknowledged = time.monotonic()
            self._await(crop_ids, track, readers, acknowledged)

    def post_twice(self) -> None:
        """Post the same crops to all services at once: each must be stored once."""
        with self._clients() as clients, ThreadPoolExecutor(len(clients)) as threads:
            track, body = self._new_batch()
            answers = list(threads.map(lambda client: asked(client, "/embed", body, 201), clients))
            acknowledged = time.monotonic()
            crop_ids = [_crop_ids(answer) for answer in answers]
            created = [item for one in answers for item in one["items"] if item["status"] == "created"]
            if any(one != crop_ids[0] for one in crop_ids) or len(created) != _BATCH:
                self.ledger.wrong(f"crops that were posted to all services became {crop_ids}")
            self.ledger.posted_twice += _BATCH  # only this visitor writes it
            self._await(crop_ids[0], track, clients, acknowledged)

    def delete(self) -> None:
        """Delete a crop at one service: after the answer no service may serve it."""
        crop_id = self.ledger.take_one(self.rng)
        if crop_id is None:
            time.sleep(REST)
            return
        with self._clients() as clients:
            track = json.loads(clients[-1].send("GET", f"/crops/{crop_id}").body)["track_id"]
            required(clients[0].send("DELETE", f"/crops/{crop_id}"), 204)
            self.ledger.note_deleted(crop_id)
            for client in clients:
                if crop_id in self._search(client, track_id=track):
                    self.ledger.wrong(f"{crop_id} was found after it had been deleted")
                required(client.send("GET", f"/crops/{crop_id}"), 404)

    def search(self) -> None:
        """Search one service among everything: expects the requested number of matches, none of them deleted."""
        with self._clients() as (client, *_):
            kept, deleted = self.ledger.now()
            crop_ids = self._search(client)
            if gone := deleted & set(crop_ids):
                self.ledger.wrong(f"{gone} were found after they had been deleted")
            if kept > _MANY and len(crop_ids) != _TOP_K:
                self.ledger.wrong(f"{len(crop_ids)} matches among {kept} crops; {_TOP_K} were wanted")

    def _await(self, crop_ids: list[str], track: str, clients: Collection[Client], acknowledged: float) -> None:
        for client in clients:
            while True:
                sent = time.monotonic() - acknowledged
                found = self._search(client, track_id=track)
                if unknown := set(found) - set(crop_ids):
                    self.ledger.wrong(f"{unknown} were found as well as {crop_ids}")
                if set(found) >= set(crop_ids):
                    self.ledger.delays.append((time.monotonic() - acknowledged, sent))
                    break
                if sent > FOUND_WITHIN:
                    self.ledger.wrong(f"{sent:.1f} s after {crop_ids} were acknowledged, only {found} were found")
                    break
        self.ledger.keep(crop_ids)

    def _search(self, client: Client, **filters: str) -> list[str]:
        self.ledger.searches += 1
        return _search(client, self.pictures, self.ledger, top_k=str(_TOP_K), **filters)

    def _new_batch(self) -> tuple[str, bytes]:
        """The track of new crops, and the form that posts them."""
        self.batches += 1
        track = f"{self.number}-{self.batches}"
        camera = f"{self.number}-{self.batches // _BATCHES_A_CAMERA}"
        self.cameras.add(camera)
        fields = {"camera_id": camera, "captured_at": "2026-05-04T17:30:00Z", "track_id": track}
        return track, multipart(self.pictures.take(_BATCH), fields)

    @contextmanager
    def _clients(self) -> Iterator[list[Client]]:
        """One client of each service, in random order."""
        with ExitStack() as stack:
            ports = self.rng.sample(list(self.ports), len(self.ports))
            yield [stack.enter_context(closing(Client(port))) for port in ports]


def _check_gallery(port: int, pictures: Pictures, cameras: Collection[str], ledger: Ledger) -> None:
    """Whether a service lists and finds exactly what is kept."""
    with closing(Client(port)) as client:
        in_gallery = [one["id"] for one in listed(lambda path: required(client.send("GET", path), 200).body)]
        found = [
            crop_id
            for camera in sorted(cameras)
            for crop_id in _search(client, pictures, ledger, top_k=str(_MOST_MATCHES), camera_ids=camera)
        ]
    for what, crop_ids in (("lists", in_gallery), ("finds", found)):
        lost, too_many = ledger.kept - set(crop_ids), set(crop_ids) - ledger.kept
        if lost or too_many or len(crop_ids) != len(ledger.kept):
            ledger.wrong(
                f"port {port} {what} {len(crop_ids)} crops where {len(ledger.kept)} are kept; "
                f"lost: {sorted(lost)[:5]}, too many: {sorted(too_many)[:5]}"
            )


def _search(client: Client, pictures: Pictures, ledger: Ledger, **fields: str) -> list[str]:
    """The ids of the matches of a new picture."""
    answer = asked(client, "/search", multipart(pictures.take(1), fields), 200)
    crop_ids = [match["crop"]["id"] for match in answer["matches"]]
    if len(set(crop_ids)) < len(crop_ids):
        ledger.wrong(f"a match came twice: {crop_ids}")
    return crop_ids


def _crop_ids(answer: Any) -> list[str]:
    return [item["crop"]["id"] for item in answer["items"]]
