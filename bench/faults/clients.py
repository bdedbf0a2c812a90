"""Clients of a service that may fail at any moment; they record what it has acknowledged."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from bench.clients import Answer, Client, NotAnswered, multipart
from bench.faults.ledger import NO_ANSWER, Ledger, jpeg
from bench.visiting import REST, visiting

CAMERAS = 3
ALIKE = 0.999
"""The least similarity of a picture to itself; embeddings are stored in float16."""

_SECONDS = 60.0
_BUSY = 429
_START_OF_IMAGE = b"\xff\xd8"
_COMMENT = b"\xff\xfe\x00\x0a"  # with eight bytes of text


class RequestError(Exception):
    """A request failed; the ledger has its status."""


class FaultClient:
    """A client with one connection."""

    def __init__(self, port: int, ledger: Ledger, rng: random.Random) -> None:
        self._client = Client(port, _SECONDS)
        self._ledger = ledger
        self._rng = rng
        self._unposted: list[int] = []

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self, method: str, path: str, body: bytes | None = None, *wanted: int) -> Answer:
        """Send a request, with retries while the service is busy. Raises RequestError for an unexpected status."""
        while True:
            try:
                answer = self._client.send(method, path, body)
            except NotAnswered as error:
                self._ledger.trouble(NO_ANSWER)
                raise RequestError(str(error)) from error
            if answer.status in wanted:
                return answer
            if answer.status != _BUSY:
                self._ledger.trouble(answer.status)
                raise RequestError(f"{method} {path} was answered {answer.status}: {answer.body[:500]!r}")
            time.sleep(REST)

    def post(self, numbers: list[int]) -> None:
        """Post crops, and record them as kept."""
        items = [{"track_id": str(number), "camera_id": f"camera-{number % CAMERAS}"} for number in numbers]
        fields = {"captured_at": "2026-05-04T17:30:00Z", "items": json.dumps(items)}
        body = multipart([jpeg(number) for number in numbers], fields)
        results = json.loads(self.ask("POST", "/embed", body, 201).body)["items"]
        failed = [item for item in results if item["status"] not in ("created", "existing")]
        if failed:
            self._ledger.wrong(f"sound pictures failed: {failed[:3]}")
        stored = zip(results, numbers, strict=True)
        self._ledger.keep({item["crop"]["id"]: number for item, number in stored if item not in failed})

    def post_crops(self, size: int) -> None:
        """Post new crops, unless `size` are kept; after a failure, retry the same ones, as camera pipelines do."""
        if not self._unposted:
            if len(self._ledger.kept) > size:
                time.sleep(REST)
                return
            self._unposted = self._ledger.post(self._rng, self._rng.randint(1, 6))
        self.post(self._unposted)
        self._unposted = []

    def delete_crop(self, size: int) -> None:
        """Delete a crop, with a probability that rises with the number of kept crops, relative to `size`."""
        if len(self._ledger.kept) < size * self._rng.uniform(0, 1.2):
            time.sleep(REST)
            return
        self.delete()

    def delete(self) -> None:
        """Delete a crop that is kept."""
        taken = self._ledger.leave(self._rng)
        if taken is None:
            return
        if self.ask("DELETE", f"/crops/{taken[0]}", None, 204, 404).status == 404:
            self._ledger.wrong(f"crop {taken[1]} was kept, but its deletion was answered 404")
        self._ledger.delete([taken[0]])

    def matches(self, number: int, fields: Mapping[str, str]) -> list[Any]:
        """The matches of a search by a crop's picture, in a file with other bytes."""
        content = jpeg(number)
        text = f"{self._rng.randrange(10**8):08}".encode()
        content = _START_OF_IMAGE + _COMMENT + text + content[len(_START_OF_IMAGE) :]
        self._ledger.query(content)
        answer = self.ask("POST", "/search", multipart([content], fields), 200)
        matches: list[Any] = json.loads(answer.body)["matches"]
        return matches

    def check_crop(self, _: int) -> None:
        """Check that a kept crop is found and served byte for byte, unless it is deleted during the check."""
        gone = self._ledger.gone()
        chosen = self._ledger.one_kept(self._rng)
        if chosen is None:
            return
        crop_id, number = chosen
        matches = self.matches(number, {"top_k": "5"})
        if deleted := gone & {match["crop"]["id"] for match in matches}:
            self._ledger.wrong(f"{len(deleted)} crops were found after they had been deleted")
        image = self.ask("GET", f"/crops/{crop_id}/image", None, 200, 404)
        if not self._ledger.is_kept(crop_id):
            return
        if not is_first(crop_id, matches):
            self._ledger.wrong(f"crop {number} was not found by its own picture: {shortened(matches)}")
        if image.body != jpeg(number):
            self._ledger.wrong(f"the picture of crop {number} was answered {image.status}, and is not what was posted")


def is_first(crop_id: str, matches: list[Any]) -> bool:
    """Whether a crop is the first match, with similarity 1 up to rounding."""
    return bool(matches) and matches[0]["crop"]["id"] == crop_id and matches[0]["similarity"] > ALIKE


def shortened(matches: list[Any]) -> list[tuple[str, float]]:
    """The first matches, abbreviated."""
    return [(match["crop"]["track_id"], round(match["similarity"], 3)) for match in matches[:3]]


@contextmanager
def clients(port: int, ledger: Ledger, rng: random.Random, size: int) -> Iterator[None]:
    """Clients that post, delete and search until the block ends, and keep about `size` crops."""
    with ExitStack() as stack:
        fault_clients = [FaultClient(port, ledger, random.Random(rng.random())) for _ in range(5)]
        for client in fault_clients:
            stack.callback(client.close)
        kinds = (
            FaultClient.post_crops,
            FaultClient.post_crops,
            FaultClient.delete_crop,
            FaultClient.delete_crop,
            FaultClient.check_crop,
        )
        works = [partial(_do, kind, client, size) for kind, client in zip(kinds, fault_clients, strict=True)]
        with visiting(works, ledger.wrong):
            yield


def _do(kind: Callable[[FaultClient, int], None], client: FaultClient, size: int) -> None:
    try:
        kind(client, size)
    except RequestError:
        time.sleep(REST)
