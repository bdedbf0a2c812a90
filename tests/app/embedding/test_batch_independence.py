"""A crop's embedding does not depend on its batch, for the bundled checkpoint and batches of many sizes."""

import asyncio
import random

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from app.embedding.crop_queue import Priority
from app.embedding.engine import Engines, load_engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.service import EmbeddedCrop, EmbeddingService
from model.checkpoint import BUNDLED
from model.decoding import PictureLimits, decode
from tests.app.factories import encoded, picture

BATCH_SIZE = 32

SIZES = (*range(1, 10), 15, 16, 17, BATCH_SIZE - 1, BATCH_SIZE)
"""All small ones, and those around a power of two: kernels differ by the rows that are left of their blocks."""

TOLERANCES = {"onnx": 1e-5, "openvino": 2e-3}
"""For each number of an embedding. OpenVINO may compute in bfloat16, whose sums round differently in another order."""


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Different files for a full batch, in all formats and several shapes."""
    return [
        encoded(picture(seed, 96 + 8 * (seed % 5), 48 + 4 * (seed % 3)), ("JPEG", "PNG", "WEBP")[seed % 3])
        for seed in range(BATCH_SIZE)
    ]


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of engine."""
    if request.param == "openvino":
        pytest.importorskip("app.embedding.openvino_engine")
    return str(request.param)


@pytest.fixture(scope="module")
def tolerance(kind: str) -> float:
    return TOLERANCES[kind]


@pytest.fixture(scope="module")
def engines(kind: str) -> Engines:
    """The bundled checkpoint on three cores: a worker for each core, and a single-request engine with all of them."""
    return load_engines(BUNDLED.with_suffix(".onnx"), kind, threads=3)


@pytest.fixture(scope="module")
def crops(files: list[bytes], engines: Engines) -> NDArray[np.uint8]:
    """The files decoded."""
    return np.stack([decode(content, PictureLimits(), engines.metadata.input).pixels for content in files])


@pytest.fixture(scope="module")
def alone(crops: NDArray[np.uint8], engines: Engines) -> NDArray[np.float32]:
    """The parts of each file, embedded alone by a worker."""
    return np.concatenate([engines.workers[0].embed(crop[None]) for crop in crops])


@pytest.mark.slow
def test_embeddings_do_not_depend_on_the_size_of_the_batch(
    crops: NDArray[np.uint8], alone: NDArray[np.float32], engines: Engines, tolerance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    together = {size: rng.permutation(BATCH_SIZE)[:size] for size in SIZES}
    assert len(engines.distinct) == 2
    for engine in engines.distinct:
        furthest = {size: np.abs(engine.embed(crops[some]) - alone[some]).max() for size, some in together.items()}
        assert max(furthest.values()) < tolerance, furthest
    assert np.abs(alone[0] - alone[1]).max() > 5 * tolerance, "other crops have other embeddings"


async def test_embeddings_do_not_depend_on_other_requests(
    files: list[bytes], alone: NDArray[np.float32], engines: Engines, tolerance: float, seed: int
) -> None:
    rng = random.Random(seed)
    registry = CollectorRegistry()

    async def client(service: EmbeddingService) -> None:
        await asyncio.sleep(rng.uniform(0, 0.5))
        chosen = [rng.randrange(len(files)) for _ in range(rng.choice((1, 2, 5, 40)))]
        contents = [b"no picture" if rng.random() < 0.1 else files[i] for i in chosen]
        results = await service.embed(contents, rng.choice(list(Priority)))
        for i, content, result in zip(chosen, contents, results, strict=True):
            assert isinstance(result, EmbeddedCrop) == (content == files[i])
            if isinstance(result, EmbeddedCrop):
                assert np.abs(result.parts - alone[i]).max() < tolerance

    service = EmbeddingService(engines, PictureLimits(), EmbeddingMetrics(registry), BATCH_SIZE)
    await service.start()
    await asyncio.gather(*(client(service) for _ in range(8)))
    await service.stop()
