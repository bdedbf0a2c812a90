"""The service against the plain libraries that it uses."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import faiss
import httpx
import numpy as np
from numpy.typing import NDArray

from bench.bare import BareSession
from bench.filling import fill
from bench.pictures import Pictures, as_inputs
from bench.rows import Row
from bench.service import RunningService, service
from model.architecture import EMBEDDING_DIM
from model.checkpoint import BUNDLED
from model.loading import read_metadata

GALLERY = 20_000
TOP_K = 20


def rows(rounds: int) -> list[Row]:
    """The service's lines: throughput, latency, memory, start."""
    metadata = read_metadata(BUNDLED)
    pictures = Pictures().drawn
    inputs = as_inputs(pictures, metadata.input)
    session = BareSession(BUNDLED, inputs)
    with tempfile.TemporaryDirectory() as folder:
        with service(Path(folder)) as running:
            at_rest = running.resident_megabytes
        asyncio.run(fill(Path(folder), metadata.model_id, _vectors(GALLERY)))
        with service(Path(folder)) as running:
            searching = _searching(running, session, pictures, inputs, rounds)
            ready = running.seconds_to_ready
    return [
        searching,
        Row("resident at rest, empty gallery", f"{at_rest:.0f} MB", "", "", "under 700 MB", at_rest < 700),
        Row(f"start to ready, {GALLERY:,} crops", f"{ready:.1f} s", "", "", "under 10 s", ready < 10),
    ]


def _searching(
    running: RunningService,
    session: BareSession,
    pictures: list[bytes],
    inputs: NDArray[np.uint8],
    rounds: int,
) -> Row:
    """Milliseconds of one `POST /search`, and of one bare embedding and one bare FAISS search; in turn."""
    flat = faiss.IndexFlatIP(EMBEDDING_DIM)
    flat.add(_vectors(GALLERY).astype(np.float32))
    ours, bare = [], []
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for number in range(10 * rounds + 1):
            began = time.perf_counter()
            answer = client.post(
                "/search", files={"files": ("q.jpg", pictures[number % len(pictures)])}, data={"top_k": str(TOP_K)}
            )
            ours.append(time.perf_counter() - began)
            if len(answer.json()["matches"]) != TOP_K:
                raise RuntimeError(f"the search failed: {answer.text[:500]}")
            began = time.perf_counter()
            vector = session.run(inputs[number % len(inputs)][None])
            flat.search(vector.reshape(1, -1), TOP_K)
            bare.append(time.perf_counter() - began)
    ours, bare = ours[1:], bare[1:]
    ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
    return Row(
        f"one search among {GALLERY:,} crops",
        f"{1000 * statistics.median(ours):.1f} ms",
        f"{1000 * statistics.median(bare):.1f} ms",
        f"{ratio:.2f}",
        "under 1.5",
        ratio < 1.5,
    )


def _vectors(count: int) -> NDArray[np.float16]:
    vectors = np.random.default_rng(0).standard_normal((count, EMBEDDING_DIM), dtype=np.float32)
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return unit
