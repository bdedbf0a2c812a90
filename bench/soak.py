"""`python -m bench.soak --minutes 10`: memory under mixed load, with valid and invalid requests."""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path

from rich.console import Console

from bench.client_threads import BUSY_SECONDS, PAUSE_SECONDS, client_threads, expect_status
from bench.clients import CAPTURED_AT, Answer, Client, RequestFailed, multipart, raw_post
from bench.pictures import Pictures
from bench.rows import Row
from bench.service import RunningService, exit_on_sigterm, service

SECONDS_A_LINE = 10
GALLERY = 1_000
"""The number of crops to keep; more are deleted, so that memory should not grow."""
CROPS, MAX_CROPS = 32, 256
"""Of a usual request, and of the largest that the service takes."""
MAX_GROWTH, MAX_MEGABYTES = 1.1, 1_500
_STORED = {"camera_id": "soak", "captured_at": CAPTURED_AT}


@dataclass
class _Clients:
    """The clients' actions and their shared state: the ids of stored crops, a record of all requests, and errors."""

    port: int
    pictures: Pictures
    crops: deque[str] = field(default_factory=deque)
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def done(self) -> Counter[str]:
        """The counts of requests by kind."""
        return Counter(self.requests)

    def ingest(self, client: Client) -> None:
        """Store crops, unless deletions lag behind."""
        if len(self.crops) > GALLERY + MAX_CROPS:
            self._pause(client)
            return
        answer = self._post(client, "/embed", self.pictures.take(CROPS), _STORED, 201)
        self.crops.extend(_ids(answer))

    def embed(self, client: Client) -> None:
        """Embed the largest request, and store nothing."""
        self._post(client, "/embed", self.pictures.take(MAX_CROPS), {"store": "false", "include": "vector"}, 201)

    def search(self, client: Client) -> None:
        """Search by one picture."""
        self._post(client, "/search", self.pictures.take(1), {"top_k": "20"}, 200)

    def post_bad_pictures(self, client: Client) -> None:
        """Embed one valid file among invalid ones; then search by a file that is not a picture."""
        good = self.pictures.take(1)[0]
        answer = self._post(client, "/embed", [good[: len(good) // 2], b"no picture", b"", good], _STORED, 201)
        statuses = [item["status"] for item in json.loads(answer.body)["items"]] if answer.status == 201 else []
        if statuses not in ([], ["failed", "failed", "failed", "created"]):
            raise RequestFailed(f"three bad files and a good one have the statuses {statuses}")
        self.crops.extend(_ids(answer))
        self._post(client, "/search", [b"no picture"], {}, 422)

    def disconnect(self, client: Client) -> None:
        """Disconnect while sending the body, and while waiting for the answer."""
        request = raw_post("/embed", multipart(self.pictures.take(CROPS), {"store": "false"}))
        for sent in (request[: len(request) // 2], request):
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(sent)
                time.sleep(0.05)
            self.requests.append("disconnected")
        time.sleep(1)

    def delete(self, client: Client) -> None:
        """Delete the oldest crop, if there are more than GALLERY."""
        if len(self.crops) <= GALLERY:
            self._pause(client)
            return
        crop_id = self.crops.popleft()
        expect_status(client.send("DELETE", f"/crops/{crop_id}"), 204)
        self.requests.append("DELETE")

    def _pause(self, client: Client) -> None:
        """Wait without a connection, as the service closes idle ones."""
        client.close()
        time.sleep(PAUSE_SECONDS)

    def _post(self, client: Client, path: str, files: list[bytes], fields: dict[str, str], expected: int) -> Answer:
        answer = client.send("POST", path, multipart(files, fields))
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self.requests.append("429")
            time.sleep(BUSY_SECONDS)
            return answer
        expect_status(answer, expected)
        self.requests.append(f"{path} {expected}")
        return answer


@dataclass(frozen=True)
class SoakResult:
    """first, last, peak: resident megabytes after warm-up, at the end and at most; errors: other than status 429."""

    first: float
    last: float
    peak: float
    done: Counter[str]
    errors: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing failed and memory stayed flat and small."""
        return not self.errors and self.last < MAX_GROWTH * self.first and self.peak < MAX_MEGABYTES


def soak(minutes: float, console: Console) -> SoakResult:
    """Put mixed load on a new service, and print its memory every ten seconds."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        clients = _Clients(running.port, Pictures())
        resident = []
        with _mixed_load(clients):
            for megabytes in _every_second(running, 60 * minutes):
                resident.append(megabytes)
                if len(resident) % SECONDS_A_LINE == 0:
                    console.print(f"{len(resident):4} s  {megabytes:6.0f} MB  {dict(clients.done)}", highlight=False)
        quarter = max(1, len(resident) // 4)
        first, last = resident[quarter : 2 * quarter] or resident, resident[-quarter:]
        peak = running.peak_megabytes
    return SoakResult(statistics.median(first), statistics.median(last), peak, clients.done, clients.errors)


def rows(rounds: int) -> list[Row]:
    """The line of one minute, for any number of rounds. Raises RequestFailed if there were errors."""
    result = soak(1, Console())
    if result.errors:
        raise RequestFailed(f"{len(result.errors)} errors under mixed load, the first: {result.errors[0]}")
    return [
        Row(
            f"memory under mixed load, 1 minute, {result.done.total():,} requests",
            f"{result.first:.0f} MB, then {result.last:.0f} MB, at most {result.peak:.0f} MB",
            ratio=f"{result.last / result.first:.2f}",
            target=f"under {MAX_GROWTH}, {MAX_MEGABYTES} MB",
            met=result.passed,
        )
    ]


@contextmanager
def _mixed_load(clients: _Clients) -> Iterator[None]:
    """Clients of all kinds, each with its own connection, until the block ends."""
    kinds = [clients.ingest, clients.embed, clients.search, clients.post_bad_pictures, clients.disconnect]
    kinds += [clients.ingest, clients.delete, clients.delete]
    with ExitStack() as stack:
        actions = [partial(kind, stack.enter_context(closing(Client(clients.port)))) for kind in kinds]
        with client_threads(actions, clients.errors.append):
            yield


def _every_second(running: RunningService, seconds: float) -> Iterator[float]:
    """The service's resident megabytes, each second. Raises RuntimeError if it has ended."""
    began = time.monotonic()
    for number in range(1, int(seconds) + 1):
        time.sleep(max(0.0, began + number - time.monotonic()))
        if not running.process.is_running():
            raise RuntimeError("the service has ended")
        yield running.resident_megabytes


def _ids(answer: Answer) -> list[str]:
    """The ids of the crops that were stored; none if the service was busy."""
    if answer.status != 201:
        return []
    return [item["crop"]["id"] for item in json.loads(answer.body)["items"] if item["status"] == "created"]


def main() -> None:
    """Soak; exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    exit_on_sigterm()
    console = Console(soft_wrap=True)
    result = soak(minutes, console)
    console.print(
        f"first {result.first:.0f} MB, last {result.last:.0f} MB, peak {result.peak:.0f} MB; {dict(result.done)}"
    )
    console.print(f"{len(result.errors)} errors", *Counter(result.errors).most_common(20), sep="\n")
    sys.exit(not result.passed)


if __name__ == "__main__":
    main()
