"""Clients of a service that may fail at any moment; they record what it has acknowledged."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from bench.client_threads import MIN_SELF_SIMILARITY, PAUSE_SECONDS, client_threads
from bench.clients import CAPTURED_AT, Answer, Client, NotAnswered, multipart
from bench.faults.ledger import NO_ANSWER, Ledger, jpeg
from bench.pictures import with_comment

CAMERAS = 3

_TIMEOUT_SECONDS = 60.0


class RequestError(Exception):
    """A request failed; the ledger has counted its status."""


class FaultClient:
    """A client with one connection; not thread-safe."""

    def __init__(self, port: int, ledger: Ledger, rng: random.Random) -> None:
        self._client = Client(port, _TIMEOUT_SECONDS)
        self._ledger = ledger
        self._rng = rng
        self._unposted: list[int] = []

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self, method: str, path: str, body: bytes | None, *expected: int) -> Answer:
        """Send a request, with retries while the service is busy. Raises RequestError for an unexpected status."""
        while True:
            try:
                answer = self._client.send(method, path, body)
            except NotAnswered as error:
                self._ledger.count_error(NO_ANSWER)
                raise RequestError(str(error)) from error
            if answer.status in expected:
                return answer
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                self._ledger.count_error(answer.status)
                raise RequestError(f"{method} {path} was answered {answer.status}: {answer.body[:500]!r}")
            time.sleep(PAUSE_SECONDS)

    def post(self, numbers: list[int]) -> None:
        """Post crops, and record them as kept."""
        items = [{"track_id": str(number), "camera_id": f"camera-{number % CAMERAS}"} for number in numbers]
        fields = {"captured_at": CAPTURED_AT, "items": json.dumps(items)}
        body = multipart([jpeg(number) for number in numbers], fields)
        results = json.loads(self.ask("POST", "/embed", body, 201).body)["items"]
        failed = [item for item in results if item["status"] not in ("created", "existing")]
        if failed:
            self._ledger.add_violation(f"valid pictures failed: {failed[:3]}")
        crops = zip(results, numbers, strict=True)
        self._ledger.keep({item["crop"]["id"]: number for item, number in crops if item not in failed})

    def post_crops(self, size: int) -> None:
        """Post new crops, unless more than `size` are kept; after a failure, retry the same, as camera pipelines do."""
        if not self._unposted:
            if len(self._ledger.kept) > size:
                time.sleep(PAUSE_SECONDS)
                return
            self._unposted = self._ledger.post(self._rng, self._rng.randint(1, 6))
        self.post(self._unposted)
        self._unposted = []

    def delete_crop(self, size: int) -> None:
        """Delete a crop, with a probability that rises with the number of kept crops, relative to `size`."""
        if len(self._ledger.kept) < size * self._rng.uniform(0, 1.2):
            time.sleep(PAUSE_SECONDS)
            return
        crop = self._ledger.take_for_deletion(self._rng)
        if crop is None:
            return
        crop_id, number = crop
        if self.ask("DELETE", f"/crops/{crop_id}", None, 204, 404).status == 404:
            self._ledger.add_violation(f"crop {number} was kept, but its deletion was answered 404")
        self._ledger.delete(crop_id)

    def matches(self, number: int, fields: Mapping[str, str]) -> list[Any]:
        """The matches of a search by a crop's picture, in a file with different bytes."""
        content = with_comment(jpeg(number), f"{self._rng.randrange(10**8):08}")
        self._ledger.query(content)
        answer = self.ask("POST", "/search", multipart([content], fields), 200)
        matches: list[Any] = json.loads(answer.body)["matches"]
        return matches

    def check_crop(self, _: int) -> None:
        """Check that a kept crop is found and served byte for byte, unless it is deleted during the check."""
        deleted = self._ledger.deleted_ids()
        crop = self._ledger.random_kept(self._rng)
        if crop is None:
            return
        crop_id, number = crop
        matches = self.matches(number, {"top_k": "5"})
        if found_deleted := deleted & {match["crop"]["id"] for match in matches}:
            self._ledger.add_violation(f"{len(found_deleted)} crops were found after they had been deleted")
        image = self.ask("GET", f"/crops/{crop_id}/image", None, 200, 404)
        if not self._ledger.is_kept(crop_id):
            return
        if not is_first(crop_id, matches):
            self._ledger.add_violation(f"crop {number} was not found by its own picture: {summary(matches)}")
        if image.body != jpeg(number):
            self._ledger.add_violation(f"the picture of crop {number}, status {image.status}, is not the posted one")


def is_first(crop_id: str, matches: list[Any]) -> bool:
    """Whether a crop is the first match, with similarity 1 up to rounding."""
    return bool(matches) and matches[0]["crop"]["id"] == crop_id and matches[0]["similarity"] > MIN_SELF_SIMILARITY


def summary(matches: list[Any]) -> list[tuple[str, float]]:
    """Track and similarity of the first three matches."""
    return [(match["crop"]["track_id"], round(match["similarity"], 3)) for match in matches[:3]]


@contextmanager
def clients(port: int, ledger: Ledger, rng: random.Random, size: int) -> Iterator[None]:
    """Post, delete and search until the block ends, in a gallery of about `size` crops."""
    with ExitStack() as stack:
        fault_clients = [FaultClient(port, ledger, random.Random(rng.random())) for _ in range(5)]
        for client in fault_clients:
            stack.callback(client.close)
        kinds = [FaultClient.post_crops] * 2 + [FaultClient.delete_crop] * 2 + [FaultClient.check_crop]
        actions = [partial(_act, kind, client, size) for kind, client in zip(kinds, fault_clients, strict=True)]
        with client_threads(actions, ledger.add_violation):
            yield


def _act(kind: Callable[[FaultClient, int], None], client: FaultClient, size: int) -> None:
    try:
        kind(client, size)
    except RequestError:
        time.sleep(PAUSE_SECONDS)
