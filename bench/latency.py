"""Latency of one crop on an idle service, and of a search while bulk work fills the queue."""

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.bare import BATCHES, BareSession
from bench.clients import CAPTURED_AT, Client, RequestFailed, multipart
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn, median_ratio, milliseconds
from bench.rows import Row
from bench.service import RunningService, service
from model.checkpoint import BUNDLED
from model.loading import read_metadata

CROPS_A_ROUND = 100
SEARCHES_A_ROUND = 40
BULK_CLIENTS, BULK_CROPS = 8, 128
"""Enough to fill the queue."""
FILLING_SECONDS = 5


def rows(rounds: int) -> list[Row]:
    """A line for each, measured on one service."""
    pictures = Pictures()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        return [_idle(running, pictures, rounds), _while_ingesting(running, pictures, rounds)]


def _idle(running: RunningService, pictures: Pictures, rounds: int) -> Row:
    """The medians of `/embed` of one crop, not stored, and of the bare session."""
    inputs = as_inputs(pictures.take(max(BATCHES)), read_metadata(BUNDLED).input)
    bare = BareSession(BUNDLED, inputs)

    def ours() -> float:
        bodies = [multipart([content], {"store": "false"}) for content in pictures.take(CROPS_A_ROUND)]
        return statistics.median(post_milliseconds(running.port, "/embed", bodies, 201))

    def bare_session() -> float:
        return statistics.median(milliseconds(bare.run, islice(cycle(inputs[:, None]), CROPS_A_ROUND)))

    medians = in_turn({"ours": ours, "bare": bare_session}, rounds)
    ratio = median_ratio(medians["ours"], medians["bare"])
    return Row(
        "one crop, idle service, /embed, not stored, p50",
        f"{statistics.median(medians['ours']):.1f} ms",
        f"{statistics.median(medians['bare']):.1f} ms, bare session",
        f"{ratio:.2f}",
        "under 1.3",
        ratio < 1.3,
    )


def _while_ingesting(running: RunningService, pictures: Pictures, rounds: int) -> Row:
    """The 95th percentile of `/search`, and the engine's mean time of a batch then, from the service's metrics."""
    searches, batches = [], []
    with bulk_work(running, pictures, BULK_CLIENTS, BULK_CROPS):
        for _ in range(rounds):
            before = running.metrics()
            bodies = [multipart([content], {"top_k": "20"}) for content in pictures.take(SEARCHES_A_ROUND)]
            times = post_milliseconds(running.port, "/search", bodies, 200)
            searches.append(float(np.percentile(times, 95)))
            batches.append(1000 * _mean_since(before, running.metrics(), "passerby_embedding_engine_seconds"))
    ratio = median_ratio(searches, batches)
    return Row(
        f"/search while {BULK_CLIENTS} x {BULK_CROPS} crops wait, p95",
        f"{statistics.median(searches):.0f} ms",
        f"{statistics.median(batches):.0f} ms, a batch in the engine",
        f"{ratio:.2f}",
        "under 3",
        ratio < 3,
    )


@contextmanager
def bulk_work(running: RunningService, pictures: Pictures, clients: int, crops: int) -> Iterator[None]:
    """Clients that post requests of `crops` crops until the block ends. Raises RequestFailed if a request failed."""
    stop = threading.Event()

    def post() -> None:
        fields = {"camera_id": "bulk", "captured_at": CAPTURED_AT}
        with closing(Client(running.port)) as client:
            while not stop.is_set():
                answer = client.post("/embed", multipart(pictures.take(crops), fields), 201)
                if any(item["status"] != "created" for item in json.loads(answer)["items"]):
                    raise RequestFailed(f"not all crops were stored: {answer[:500]!r}")

    with ThreadPoolExecutor(clients) as pool:
        loops = [pool.submit(post) for _ in range(clients)]
        try:
            time.sleep(FILLING_SECONDS)
            yield
        finally:
            stop.set()
    for loop in loops:
        loop.result()


def post_milliseconds(port: int, path: str, bodies: list[bytes], expected: int) -> list[float]:
    """The duration of each of several sequential posts over one connection. Raises RequestFailed."""
    with closing(Client(port)) as client:
        return milliseconds(lambda body: client.post(path, body, expected), bodies)


def _mean_since(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """The mean of a histogram's observations between two snapshots of it."""
    return (after[f"{name}_sum"] - before[f"{name}_sum"]) / (after[f"{name}_count"] - before[f"{name}_count"])
