"""The service beside the bare libraries that it stands on."""

import asyncio
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import faiss
import httpx
import numpy as np
import onnxruntime
import PIL.Image
from numpy.typing import NDArray

from app.database import Database
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Camera, Crop, Image
from app.kit.ids import new_id
from app.settings import Settings
from bench.rows import Row
from bench.service import RunningService, service
from model.architecture import EMBEDDING_DIM
from model.checkpoint import BUNDLED, InputFormat
from model.datasets.synthetic import synthetic_crops
from model.loading import read_metadata
from model.transforms import to_input

FILES_A_REQUEST = 32
CLIENTS = 4
REQUESTS_A_ROUND = 24
GALLERY = 20_000
TOP_K = 20


def rows(rounds: int) -> list[Row]:
    """The service's lines: throughput, latency, memory, start."""
    metadata = read_metadata(BUNDLED)
    session = onnxruntime.InferenceSession(BUNDLED, providers=["CPUExecutionProvider"])
    pictures = _pictures(FILES_A_REQUEST * REQUESTS_A_ROUND * (rounds + 1))
    inputs = np.stack([_input(content, metadata.input) for content in pictures[:FILES_A_REQUEST]])
    with tempfile.TemporaryDirectory() as folder:
        with service(Path(folder)) as running:
            at_rest = running.resident_megabytes
            embedding = _embedding(running, session, pictures, inputs, rounds)
        asyncio.run(_fill(Path(folder), metadata.model_id))
        with service(Path(folder)) as running:
            searching = _searching(running, session, pictures, inputs, rounds)
            ready = running.seconds_to_ready
    return [
        embedding,
        searching,
        Row("resident at rest, empty gallery", f"{at_rest:.0f} MB", "", "", "under 700 MB", at_rest < 700),
        Row(f"start to ready, {GALLERY:,} crops", f"{ready:.1f} s", "", "", "under 10 s", ready < 10),
    ]


def _embedding(
    running: RunningService,
    session: onnxruntime.InferenceSession,
    pictures: list[bytes],
    inputs: NDArray[np.uint8],
    rounds: int,
) -> Row:
    """Crops a second through `POST /embed`, storage included, and through the bare session; in turn."""
    requests = [pictures[i : i + FILES_A_REQUEST] for i in range(0, len(pictures), FILES_A_REQUEST)]
    ours, bare = [], []
    with httpx.Client(base_url=running.url, timeout=120) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def post(contents: list[bytes]) -> None:
            files = [("files", ("crop.jpg", content)) for content in contents]
            form = {"camera_id": "bench", "captured_at": "2026-05-04T17:30:00Z"}
            answer = client.post("/embed", files=files, data=form)
            if [item["status"] for item in answer.json()["items"]] != ["created"] * len(contents):
                raise RuntimeError(f"not all crops were created: {answer.text[:500]}")

        for round_ in range(rounds + 1):  # the first warms up and does not count
            batch = requests[round_ * REQUESTS_A_ROUND : (round_ + 1) * REQUESTS_A_ROUND]
            began = time.perf_counter()
            list(pool.map(post, batch))
            ours.append(sum(map(len, batch)) / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in batch:
                session.run(None, {"crops": inputs})
            bare.append(len(inputs) * len(batch) / (time.perf_counter() - began))
    ours, bare = ours[1:], bare[1:]
    ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
    return Row(
        f"embedding, {CLIENTS} clients x {FILES_A_REQUEST} files",
        f"{statistics.median(ours):.0f} crops/s",
        f"{statistics.median(bare):.0f} crops/s",
        f"{100 * ratio:.0f} %",
        "70 % or more",
        ratio >= 0.7,
    )


def _searching(
    running: RunningService,
    session: onnxruntime.InferenceSession,
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
            (vector,) = session.run(None, {"crops": inputs[number % len(inputs)][None]})
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


async def _fill(data_dir: Path, model_id: str) -> None:
    """Put crops with random embeddings into the database, as if they had been posted."""
    database = Database(Settings(data_dir=data_dir).resolved_database_url)
    vectors = _vectors(GALLERY)
    async with database.write() as session:
        repository = GalleryRepository(session)
        repository.add(Camera(id="random", name="random", created_at=0))
        picture = Image(sha256="0" * 64, media_type="image/jpeg", width=64, height=128, bytes=0)
        await repository.add_images({picture.sha256: picture})
        crops = [
            Crop(
                id=new_id(), camera_id="random", captured_at=number, utc_offset=0, attributes={},
                image_sha256=picture.sha256, created_at=0,
            )
            for number in range(GALLERY)
        ]  # fmt: skip
        await repository.flush_crops(crops)
        await repository.add_embeddings(
            {crop.key: vector for crop, vector in zip(crops, vectors, strict=True)}, model_id
        )
    await database.close()


def _vectors(count: int) -> NDArray[np.float16]:
    vectors = np.random.default_rng(0).standard_normal((count, EMBEDDING_DIM), dtype=np.float32)
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return unit


def _pictures(count: int) -> list[bytes]:
    """Drawn people as JPEG files, each different from all others."""
    pictures = []
    for crop in synthetic_crops(people=count // 6 + 1):
        file = BytesIO()
        crop.picture.save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
        if len(pictures) == count:
            break
    return pictures


def _input(content: bytes, input_format: InputFormat) -> NDArray[np.uint8]:
    with PIL.Image.open(BytesIO(content)) as picture:
        return to_input(picture, input_format.size, input_format.interpolation)
