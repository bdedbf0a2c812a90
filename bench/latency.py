"""Latency of one crop on an idle service, and of a search while bulk work fills the queue."""

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.bare import BATCHES, BareSession
from bench.clients import Client, RequestFailed, multipart
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn, median_ratio
from bench.rows import Row
from bench.service import RunningService, service
from model.checkpoint import BUNDLED
from model.loading import read_metadata

CROPS_A_ROUND = 100
SEARCHES_A_ROUND = 40
BULK_CLIENTS, BULK_CROPS = 8, 128
"""Together these clients fill the queue."""
FILLING_SECONDS = 5


def rows(rounds: int) -> list[Row]:
    """Both lines, on one service."""
    pictures = Pictures()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        return [_idle(running, pictures, rounds), _while_ingesting(running, pictures, rounds)]


def _idle(running: RunningService, pictures: Pictures, rounds: int) -> Row:
    """The medians of `/embed` of one crop, not stored, and of the bare session."""
    inputs = as_inputs(pictures.take(max(BATCHES)), read_metadata(BUNDLED).input)
    bare = BareSession(BUNDLED, inputs)

    def ours() -> float:
        bodies = [multipart([content], {"store": "false"}) for content in pictures.take(CROPS_A_ROUND)]
        return statistics.median(milliseconds(running.port, "/embed", bodies, 201))

    def other() -> float:
        times = []
        for number in range(CROPS_A_ROUND):
            began = time.perf_counter()
            bare.run(inputs[number % len(inputs)][None])
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)

    found = in_turn({"ours": ours, "bare": other}, rounds)
    ratio = median_ratio(found["ours"], found["bare"])
    return Row(
        "one crop, idle service, /embed, not stored, p50",
        f"{statistics.median(found['ours']):.1f} ms",
        f"{statistics.median(found['bare']):.1f} ms, bare session",
        f"{ratio:.2f}",
        "under 1.3",
        ratio < 1.3,
    )


def _while_ingesting(running: RunningService, pictures: Pictures, rounds: int) -> Row:
    """The 95th percentile of `/search`, and the engine's time of a batch meanwhile, by the service's metrics."""
    waited, batches = [], []
    with bulk_work(running, pictures, BULK_CLIENTS, BULK_CROPS):
        for _ in range(rounds):
            before = running.metrics()
            bodies = [multipart([content], {"top_k": "20"}) for content in pictures.take(SEARCHES_A_ROUND)]
            times = milliseconds(running.port, "/search", bodies, 200)
            waited.append(float(np.percentile(times, 95)))
            batches.append(1000 * _mean_since(before, running.metrics(), "passerby_embedding_engine_seconds"))
    ratio = median_ratio(waited, batches)
    return Row(
        f"/search while {BULK_CLIENTS} x {BULK_CROPS} crops wait, p95",
        f"{statistics.median(waited):.0f} ms",
        f"{statistics.median(batches):.0f} ms, a batch in the engine",
        f"{ratio:.2f}",
        "under 3",
        ratio < 3,
    )


@contextmanager
def bulk_work(running: RunningService, pictures: Pictures, clients: int, crops: int) -> Iterator[None]:
    """Clients that each post so many crops a request, in a loop, until the block ends.

    Raises RequestFailed if one fails.
    """
    stop = threading.Event()

    def post() -> None:
        client = Client(running.port)
        fields = {"camera_id": "bulk", "captured_at": "2026-05-04T17:30:00Z"}
        while not stop.is_set():
            answer = client.post("/embed", multipart(pictures.take(crops), fields), 201)
            if any(item["status"] != "created" for item in json.loads(answer)["items"]):
                raise RequestFailed(f"not all crops were stored: {answer[:500]!r}")
        client.close()

    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(post) for _ in range(clients)]
        try:
            time.sleep(FILLING_SECONDS)
            yield
        finally:
            stop.set()
    for one in working:
        one.result()


def milliseconds(port: int, path: str, bodies: list[bytes], wanted: int) -> list[float]:
    """The time of each of several sequential posts over one connection. Raises RequestFailed."""
    client, times = Client(port), []
    for body in bodies:
        began = time.perf_counter()
        client.post(path, body, wanted)
        times.append(1000 * (time.perf_counter() - began))
    client.close()
    return times


def _mean_since(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """The mean of a histogram's observations between two snapshots of it."""
    return (after[f"{name}_sum"] - before[f"{name}_sum"]) / (after[f"{name}_count"] - before[f"{name}_count"])
