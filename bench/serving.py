"""Searches of the service against the plain libraries that it uses, its memory, and its start."""

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
from bench.index.comparisons import FOLDER
from bench.index.galleries import gallery_of
from bench.pictures import Pictures, as_inputs
from bench.rounds import median_ratio
from bench.rows import Row
from bench.service import RunningService, service
from model.architecture import EMBEDDING_DIM
from model.checkpoint import BUNDLED
from model.loading import read_metadata

GALLERY = 20_000
TOP_K = 20


def rows(rounds: int) -> list[Row]:
    """The lines of a search, of memory and of the start."""
    metadata = read_metadata(BUNDLED)
    pictures = Pictures().drawn
    inputs = as_inputs(pictures, metadata.input)
    session = BareSession(BUNDLED, inputs)
    embeddings = gallery_of(FOLDER, GALLERY).embeddings
    with tempfile.TemporaryDirectory() as folder:
        with service(Path(folder)) as running:
            at_rest = running.resident_megabytes
        asyncio.run(fill(Path(folder), metadata.model_id, embeddings))
        with service(Path(folder)) as running:
            search = _search_row(running, session, embeddings, pictures, inputs, rounds)
            first_ready = running.seconds_to_ready
        with service(Path(folder)) as running:
            ready = running.seconds_to_ready
    return [
        search,
        Row("resident at rest, empty gallery", f"{at_rest:.0f} MB", target="under 700 MB", met=at_rest < 700),
        Row(f"start to ready, {GALLERY:,} crops", f"{ready:.1f} s", target="under 10 s", met=ready < 10),
        Row("the same without a snapshot of the index, which is built from the rows", f"{first_ready:.1f} s"),
    ]


def _search_row(
    running: RunningService,
    session: BareSession,
    embeddings: NDArray[np.float16],
    pictures: list[bytes],
    inputs: NDArray[np.uint8],
    rounds: int,
) -> Row:
    """The time of one `POST /search`, and of one bare embedding with one bare FAISS search, alternately."""
    flat = faiss.IndexFlatIP(EMBEDDING_DIM)
    flat.add(embeddings.astype(np.float32))
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
    ours, bare = ours[1:], bare[1:]  # without the warm-up
    ratio = median_ratio(ours, bare)
    return Row(
        f"one search among {GALLERY:,} crops",
        f"{1000 * statistics.median(ours):.1f} ms",
        f"{1000 * statistics.median(bare):.1f} ms",
        f"{ratio:.2f}",
        "under 1.5",
        ratio < 1.5,
    )
