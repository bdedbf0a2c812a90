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

from bench.client_threads import PAUSE_SECONDS, client_threads, expect_status, list_crops, post_form
from bench.clients import CAPTURED_AT, MAX_TOP_K, Client, multipart
from bench.pictures import Pictures

MAX_DELAY_SECONDS = 1.0
"""Any service finds a crop in a search that is sent so long after another service acknowledged the crop."""
_BATCH, _BATCHES_A_CAMERA = 4, 100
_TOP_K = 20
_MIN_CROPS = 2 * _TOP_K
"""With fewer crops, none is deleted, so that searches among more always have enough matches."""


@dataclass(frozen=True)
class Delay:
    """Seconds from an acknowledgement until a service's first answer with the crops, and until that search was sent."""

    answered: float
    sent: float


@dataclass
class Ledger:
    """The clients' shared state. Thread-safe. kept: ids of acknowledged crops that all services have found."""

    kept: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    searches: int = 0
    posted_twice: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, crop_ids: Collection[str]) -> None:
        """Add crops that any client may delete."""
        with self._lock:
            self.kept |= set(crop_ids)

    def take_for_deletion(self, rng: random.Random) -> str | None:
        """Remove and return a random crop to delete; None if few are kept."""
        with self._lock:
            if len(self.kept) < _MIN_CROPS:
                return None
            crop_id = rng.choice(sorted(self.kept))
            self.kept.remove(crop_id)
            return crop_id

    def add_deleted(self, crop_id: str) -> None:
        """Record an acknowledged deletion."""
        with self._lock:
            self.deleted.add(crop_id)

    def snapshot(self) -> tuple[int, frozenset[str]]:
        """The number of kept crops, and the deleted ones."""
        with self._lock:
            return len(self.kept), frozenset(self.deleted)

    def add_violation(self, violation: str) -> None:
        """Record a violation."""
        with self._lock:
            self.violations.append(violation)


def run_clients(ports: Sequence[int], pictures: Pictures, seconds: float, seed: int) -> Ledger:
    """Post, delete and search on all services for so long, then compare their galleries; records violations."""
    ledger = Ledger()
    rng = random.Random(seed)
    kinds = [_Worker.post, _Worker.post, _Worker.post, _Worker.post_twice]
    kinds += [_Worker.delete, _Worker.search, _Worker.search]
    workers = [_Worker(number, ports, pictures, ledger, random.Random(rng.random())) for number in range(len(kinds))]
    actions = [partial(kind, worker) for kind, worker in zip(kinds, workers, strict=True)]
    with client_threads(actions, ledger.add_violation):
        time.sleep(seconds)
    time.sleep(MAX_DELAY_SECONDS)
    cameras = {camera for worker in workers for camera in worker.cameras}
    for port in ports:
        _check_gallery(port, pictures, cameras, ledger)
    return ledger


@dataclass
class _Worker:
    """The actions of a client thread, each with new connections."""

    number: int
    ports: Sequence[int]
    pictures: Pictures
    ledger: Ledger
    rng: random.Random
    batches: int = 0
    cameras: set[str] = field(default_factory=set)

    def post(self) -> None:
        """Post crops to one service, and poll the others until they find them."""
        with self._clients() as (writer, *readers):
            track, body = self._new_batch()
            crop_ids = _crop_ids(post_form(writer, "/embed", body, 201))
            self._wait_until_found(crop_ids, track, readers, time.monotonic())

    def post_twice(self) -> None:
        """Post the same crops to all services at once: each must be stored once."""
        with self._clients() as clients, ThreadPoolExecutor(len(clients)) as threads:
            track, body = self._new_batch()
            answers = list(threads.map(lambda client: post_form(client, "/embed", body, 201), clients))
            acknowledged = time.monotonic()
            crop_ids = [_crop_ids(answer) for answer in answers]
            created = [item for answer in answers for item in answer["items"] if item["status"] == "created"]
            if any(ids != crop_ids[0] for ids in crop_ids) or len(created) != _BATCH:
                self.ledger.add_violation(f"crops that were posted to all services got the ids {crop_ids}")
            self.ledger.posted_twice += _BATCH  # no other thread writes it
            self._wait_until_found(crop_ids[0], track, clients, acknowledged)

    def delete(self) -> None:
        """Delete a crop on one service; after its answer, no service may find or serve the crop."""
        crop_id = self.ledger.take_for_deletion(self.rng)
        if crop_id is None:
            time.sleep(PAUSE_SECONDS)
            return
        with self._clients() as clients:
            track = json.loads(clients[-1].send("GET", f"/crops/{crop_id}").body)["track_id"]
            expect_status(clients[0].send("DELETE", f"/crops/{crop_id}"), 204)
            self.ledger.add_deleted(crop_id)
            for client in clients:
                if crop_id in self._search(client, track_id=track):
                    self.ledger.add_violation(f"{crop_id} was found after it had been deleted")
                expect_status(client.send("GET", f"/crops/{crop_id}"), 404)

    def search(self) -> None:
        """Search the whole gallery on one service; expects the requested number of matches, none of them deleted."""
        with self._clients() as (client, *_):
            kept, deleted = self.ledger.snapshot()
            crop_ids = self._search(client)
            if found_deleted := deleted & set(crop_ids):
                self.ledger.add_violation(f"{found_deleted} were found after they had been deleted")
            if kept > _MIN_CROPS and len(crop_ids) != _TOP_K:
                self.ledger.add_violation(f"{len(crop_ids)} matches among {kept} crops; {_TOP_K} were requested")

    def _wait_until_found(
        self, crop_ids: list[str], track: str, clients: Collection[Client], acknowledged: float
    ) -> None:
        for client in clients:
            while True:
                sent = time.monotonic() - acknowledged
                found = self._search(client, track_id=track)
                if unexpected := set(found) - set(crop_ids):
                    self.ledger.add_violation(f"{unexpected} were found besides {crop_ids}")
                if set(found) >= set(crop_ids):
                    self.ledger.delays.append(Delay(time.monotonic() - acknowledged, sent))
                    break
                if sent > MAX_DELAY_SECONDS:
                    self.ledger.add_violation(
                        f"{sent:.1f} s after {crop_ids} were acknowledged, only {found} were found"
                    )
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
        fields = {"camera_id": camera, "captured_at": CAPTURED_AT, "track_id": track}
        return track, multipart(self.pictures.take(_BATCH), fields)

    @contextmanager
    def _clients(self) -> Iterator[list[Client]]:
        """One client of each service, in random order."""
        with ExitStack() as stack:
            ports = self.rng.sample(list(self.ports), len(self.ports))
            yield [stack.enter_context(closing(Client(port))) for port in ports]


def _check_gallery(port: int, pictures: Pictures, cameras: Collection[str], ledger: Ledger) -> None:
    """Check that a service lists and finds exactly the kept crops, each once."""
    with closing(Client(port)) as client:
        listed = [crop["id"] for crop in list_crops(lambda path: expect_status(client.send("GET", path), 200).body)]
        found = [
            crop_id
            for camera in sorted(cameras)
            for crop_id in _search(client, pictures, ledger, top_k=str(MAX_TOP_K), camera_ids=camera)
        ]
    for what, crop_ids in (("lists", listed), ("finds", found)):
        lost, too_many = ledger.kept - set(crop_ids), set(crop_ids) - ledger.kept
        if lost or too_many or len(crop_ids) != len(ledger.kept):
            ledger.add_violation(
                f"port {port} {what} {len(crop_ids)} crops where {len(ledger.kept)} are kept; "
                f"lost: {sorted(lost)[:5]}, too many: {sorted(too_many)[:5]}"
            )


def _search(client: Client, pictures: Pictures, ledger: Ledger, **fields: str) -> list[str]:
    """The ids of the matches of a new picture."""
    answer = post_form(client, "/search", multipart(pictures.take(1), fields), 200)
    crop_ids = [match["crop"]["id"] for match in answer["matches"]]
    if len(set(crop_ids)) < len(crop_ids):
        ledger.add_violation(f"a search found a crop twice: {crop_ids}")
    return crop_ids


def _crop_ids(answer: Any) -> list[str]:
    return [item["crop"]["id"] for item in answer["items"]]
