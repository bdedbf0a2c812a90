"""`python -m bench.soak --minutes 10`: memory under mixed load, with valid and invalid requests."""

import argparse
import json
import signal
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
from pathlib import Path

from rich.console import Console

from bench.clients import Answer, Client, RequestFailed, multipart, raw_post
from bench.pictures import Pictures
from bench.rows import Row
from bench.service import RunningService, service
from bench.visiting import REST, visiting

SECONDS_A_LINE = 10
GALLERY = 1_000
"""The number of crops to keep; more are deleted, so that memory should not grow."""
CROPS, MOST_CROPS = 32, 256
MOST_GROWTH, MOST_MEGABYTES = 1.1, 1_500
_BUSY = 429
_STORED = {"camera_id": "soak", "captured_at": "2026-05-04T17:30:00Z"}


@dataclass
class _Visitors:
    """The clients' shared state: the service, stored crops, counts of requests, and errors."""

    port: int
    pictures: Pictures
    crops: deque[str] = field(default_factory=deque)
    events: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def done(self) -> Counter[str]:
        """The counts of requests by kind."""
        return Counter(self.events)

    def ingest(self, client: Client) -> None:
        """Store crops, unless deletions have fallen behind."""
        if len(self.crops) > GALLERY + MOST_CROPS:
            self._rest(client)
            return
        answer = self._asked(client, "/embed", self.pictures.take(CROPS), _STORED, 201)
        self.crops.extend(_ids(answer))

    def embed(self, client: Client) -> None:
        """Embed as much as one request may hold, and store nothing."""
        self._asked(client, "/embed", self.pictures.take(MOST_CROPS), {"store": "false", "include": "vector"}, 201)

    def search(self, client: Client) -> None:
        """Search by one picture."""
        self._asked(client, "/search", self.pictures.take(1), {"top_k": "20"}, 200)

    def post_bad_pictures(self, client: Client) -> None:
        """Embed one valid file among invalid ones; then search by a file that is not a picture."""
        good = self.pictures.take(1)[0]
        answer = self._asked(client, "/embed", [good[: len(good) // 2], b"no picture", b"", good], _STORED, 201)
        statuses = [item["status"] for item in json.loads(answer.body)["items"]] if answer.status != _BUSY else []
        if statuses not in ([], ["failed", "failed", "failed", "created"]):
            raise RequestFailed(f"three bad files and a good one became {statuses}")
        self.crops.extend(_ids(answer))
        self._asked(client, "/search", [b"no picture"], {}, 422)

    def leave(self, client: Client) -> None:
        """Disconnect while sending the body, and while waiting for the answer."""
        request = raw_post("/embed", multipart(self.pictures.take(CROPS), {"store": "false"}))
        for sent in (request[: len(request) // 2], request):
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(sent)
                time.sleep(0.05)
            self.events.append("left")
        time.sleep(1)

    def delete(self, client: Client) -> None:
        """Delete the oldest crop, if there are more than the number to keep."""
        if len(self.crops) <= GALLERY:
            self._rest(client)
            return
        crop_id = self.crops.popleft()
        answer = client.send("DELETE", f"/crops/{crop_id}")
        if answer.status != 204:
            raise RequestFailed(f"DELETE /crops/{crop_id} was answered {answer.status}: {answer.body[:300]!r}")
        self.events.append("DELETE")

    def _rest(self, client: Client) -> None:
        """Wait without a connection, as the service closes idle ones."""
        client.close()
        time.sleep(REST)

    def _asked(self, client: Client, path: str, files: list[bytes], fields: dict[str, str], wanted: int) -> Answer:
        answer = client.send("POST", path, multipart(files, fields))
        if answer.status == _BUSY:
            self.events.append("429")
            time.sleep(0.2)
        elif answer.status != wanted:
            raise RequestFailed(f"POST {path} was answered {answer.status}: {answer.body[:300]!r}")
        else:
            self.events.append(f"{path} {wanted}")
        return answer


@dataclass(frozen=True)
class Soaked:
    """The results of a soak: megabytes resident after warm-up, at the end, and at most; requests; errors but 429."""

    first: float
    last: float
    peak: float
    done: Counter[str]
    errors: list[str]

    @property
    def sound(self) -> bool:
        """Whether nothing failed and memory stayed flat and small."""
        return not self.errors and self.last < MOST_GROWTH * self.first and self.peak < MOST_MEGABYTES


def soak(minutes: float, console: Console) -> Soaked:
    """Load a service that was just started, and print its memory every ten seconds."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        visitors = _Visitors(running.port, Pictures())
        resident = []
        with _visiting(visitors):
            for megabytes in _every_second(running, 60 * minutes):
                resident.append(megabytes)
                if len(resident) % SECONDS_A_LINE == 0:
                    console.print(f"{len(resident):4} s  {megabytes:6.0f} MB  {dict(visitors.done)}", highlight=False)
        quarter = max(1, len(resident) // 4)
        first, last = resident[quarter : 2 * quarter] or resident, resident[-quarter:]
        peak = running.peak_megabytes
    return Soaked(statistics.median(first), statistics.median(last), peak, visitors.done, visitors.errors)


def rows(rounds: int) -> list[Row]:
    """The line of one minute, however many rounds. Raises RequestFailed if anything was answered wrongly."""
    console = Console()
    found = soak(1, console)
    if found.errors:
        raise RequestFailed(f"{len(found.errors)} errors under mixed load, the first: {found.errors[0]}")
    return [
        Row(
            f"memory under mixed load, 1 minute, {found.done.total():,} requests",
            f"{found.first:.0f} MB, then {found.last:.0f} MB, at most {found.peak:.0f} MB",
            "",
            f"{found.last / found.first:.2f}",
            f"under {MOST_GROWTH}, {MOST_MEGABYTES} MB",
            found.sound,
        )
    ]


@contextmanager
def _visiting(visitors: _Visitors) -> Iterator[None]:
    """Clients of all kinds, each with its own connection, until the block ends."""
    kinds = [visitors.ingest, visitors.embed, visitors.search, visitors.post_bad_pictures, visitors.leave]
    kinds += [visitors.ingest, visitors.delete, visitors.delete]
    with ExitStack() as stack:
        works = [partial(kind, stack.enter_context(closing(Client(visitors.port)))) for kind in kinds]
        with visiting(works, visitors.errors.append):
            yield


def _every_second(running: RunningService, seconds: float) -> Iterator[float]:
    """The service's resident megabytes, second after second. Raises RuntimeError where it has ended."""
    began = time.monotonic()
    for number in range(1, int(seconds) + 1):
        time.sleep(max(0.0, began + number - time.monotonic()))
        if not running.process.is_running():
            raise RuntimeError("the service has ended")
        yield running.resident_megabytes


def _ids(answer: Answer) -> list[str]:
    if answer.status == _BUSY:
        return []
    return [item["crop"]["id"] for item in json.loads(answer.body)["items"] if item["status"] == "created"]


def main() -> None:
    """Soak for so many minutes; exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that child processes are stopped
    console = Console(soft_wrap=True)
    found = soak(minutes, console)
    console.print(f"first {found.first:.0f} MB, last {found.last:.0f} MB, peak {found.peak:.0f} MB; {dict(found.done)}")
    console.print(f"{len(found.errors)} errors", *Counter(found.errors).most_common(20), sep="\n")
    sys.exit(not found.sound)


if __name__ == "__main__":
    main()
