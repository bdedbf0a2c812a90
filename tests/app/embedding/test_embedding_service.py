"""The embedding service from bytes to parts, with a real engine."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from app.embedding.batch_queue import QueueClosed, QueueFull
from app.embedding.crop_queue import Priority, QueuedCrop
from app.embedding.engine import Engine, EngineError, Engines, load_engines
from app.embedding.frames import Box, CropFile
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.service import EmbeddedCrop, EmbeddingService, Result
from model.decoding import DecodedCrop, PictureError, PictureLimits, RefuseLarge, decode
from tests.app.embedding.scripted_engine import DIES, GIVES_NAN, ScriptedEngine, flat
from tests.app.factories import encoded, picture
from tests.app.waiting import eventually


@asynccontextmanager
async def running(
    engine: Engine, limits: PictureLimits | None = None, capacity: int = 1024, registry: CollectorRegistry | None = None
) -> AsyncIterator[EmbeddingService]:
    metrics = EmbeddingMetrics(registry or CollectorRegistry())
    service = EmbeddingService(
        Engines([engine]), limits or PictureLimits(), metrics, capacity=capacity, decode_threads=2
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def kinds(results: list[Result]) -> list[str]:
    """`crop`, `engine`, or the kind of the picture error, of each result."""
    return ["crop" if isinstance(result, EmbeddedCrop) else getattr(result, "kind", "engine") for result in results]


def alive(kind: type) -> int:
    """The number of objects of a class in memory."""
    return sum(type(one) is kind for one in gc.get_objects())


def decoded(registry: CollectorRegistry) -> float:
    """How many files were decoded."""
    return registry.get_sample_value("passerby_embedding_decode_seconds_count") or 0


async def test_files_become_the_parts_that_the_engine_gives_for_them_alone(tiny_checkpoint: Path) -> None:
    engine = load_engines(tiny_checkpoint).workers[0]
    contents = [encoded(picture(seed)) for seed in range(100)]

    async with running(engine) as service:
        results = await service.embed(contents, Priority.BULK)
    for content, result in zip(contents, results, strict=True):
        assert isinstance(result, EmbeddedCrop)
        alone = decode(content, PictureLimits(), engine.metadata.input)
        assert result.facts == alone.facts
        assert np.abs(result.parts - engine.embed(alone.pixels[None])[0]).max() < 1e-5


async def test_bad_files_fail_alone_and_in_their_places(tiny_checkpoint: Path) -> None:
    good = encoded(picture(1))
    contents = [good, b"", good, b"no picture", good[:-20], encoded(picture(1), "GIF"), good]
    registry = CollectorRegistry()

    async with running(load_engines(tiny_checkpoint).workers[0], registry=registry) as service:
        results = await service.embed(contents, Priority.SEARCH)
    assert kinds(results) == [
        "crop",
        "empty",
        "crop",
        "not-a-picture",
        "damaged",
        "unsupported-format",
        "crop",
    ]
    assert registry.get_sample_value("passerby_embedding_rejected_total", {"reason": "damaged"}) == 1
    assert registry.get_sample_value("passerby_embedding_decode_seconds_count") == len(contents)


async def test_the_error_of_a_bad_file_keeps_no_frames_and_so_no_file(tiny_checkpoint: Path) -> None:
    async with running(load_engines(tiny_checkpoint).workers[0]) as service:
        results = await service.embed([b"", b"no picture", encoded(picture(1))[:-20]], Priority.BULK)
    for error in results:
        assert isinstance(error, PictureError)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


async def test_a_crop_that_the_engine_fails_on_fails_alone() -> None:
    async with running(ScriptedEngine()) as service:
        results = await service.embed([flat(1), flat(GIVES_NAN), flat(2)], Priority.BULK)
    assert kinds(results) == ["crop", "engine", "crop"]


async def test_the_boxes_of_a_frame_become_files_and_bad_ones_fail_alone(tiny_checkpoint: Path) -> None:
    frame = picture(1, 480, 640)
    places = [(10 * i, 3 * i, 60, 130) for i in range(50)]
    registry = CollectorRegistry()

    async with running(load_engines(tiny_checkpoint).workers[0], registry=registry) as service:
        crops = await service.cut(encoded(frame, "PNG"), [*(Box(*place) for place in places), Box(0, 0, 2, 2)])
        files = [crop.content for crop in crops if isinstance(crop, CropFile)]
        embedded = await service.embed(files, Priority.BULK)
    assert isinstance(crops[50], PictureError)
    assert [crop.box for crop in crops[:50] if isinstance(crop, CropFile)] == places
    assert kinds(embedded) == ["crop"] * 50
    assert registry.get_sample_value("passerby_embedding_rejected_total", {"reason": "too-small"}) == 1
    assert registry.get_sample_value("passerby_embedding_cut_seconds_count") == 1


async def test_an_unusable_frame_is_one_error_and_frees_its_capacity() -> None:
    async with running(ScriptedEngine(), capacity=2) as service:
        for _ in range(3):
            with pytest.raises(PictureError, match="no picture"):
                await service.cut(b"text", [Box(0, 0, 60, 120)] * 2)
        assert kinds(await service.embed([flat(1)] * 2, Priority.BULK)) == ["crop"] * 2


async def test_a_request_of_256_files_is_accepted_by_default(tiny_checkpoint: Path) -> None:
    async with running(load_engines(tiny_checkpoint).workers[0]) as service:
        results = await service.embed([encoded(picture(1))] * 256, Priority.BULK)
    assert kinds(results) == ["crop"] * 256


async def test_a_request_is_refused_before_its_files_are_decoded() -> None:
    engine = ScriptedEngine()
    registry = CollectorRegistry()

    async with running(engine, capacity=2, registry=registry) as service:
        engine.go.clear()
        first = asyncio.create_task(service.embed([flat(1)] * 2, Priority.BULK))
        await asyncio.sleep(0)
        refused = asyncio.create_task(service.embed([flat(1)], Priority.BULK))
        frame = asyncio.create_task(service.cut(flat(1), [Box(0, 0, 20, 40)]))
        await asyncio.wait([refused, frame], timeout=0.5)
        engine.go.set()
        with pytest.raises(QueueFull):
            await refused
        with pytest.raises(QueueFull):
            await frame
        assert kinds(await first) == ["crop"] * 2
    assert decoded(registry) == 2
    assert registry.get_sample_value("passerby_embedding_cut_seconds_count") == 0


async def test_a_large_request_is_decoded_only_as_far_ahead_as_keeps_the_engine_busy() -> None:
    engine = ScriptedEngine()
    registry = CollectorRegistry()

    async with running(engine, registry=registry) as service:
        engine.go.clear()
        request = asyncio.create_task(service.embed([flat(value % 250) for value in range(256)], Priority.BULK))
        await eventually(lambda: decoded(registry) >= 64)  # the batch that the engine works on, and the next
        await asyncio.sleep(0.2)
        ahead = decoded(registry)
        engine.go.set()
        assert ahead == 64
        results = await request
    assert [int(result.parts[0, 0]) for result in results if isinstance(result, EmbeddedCrop)] == [
        value % 250 for value in range(256)
    ]


async def test_pixels_are_freed_as_soon_as_their_crops_are_embedded() -> None:
    class Watching(ScriptedEngine):
        most = 0

        def embed(self, crops: np.ndarray) -> np.ndarray:
            self.most = max(self.most, alive(DecodedCrop), alive(QueuedCrop))
            return super().embed(crops)

    engine = Watching()

    gc.collect()  # objects of other tests
    async with running(engine) as service:
        results = await service.embed([flat(1)] * 256, Priority.BULK)
        await eventually(lambda: alive(DecodedCrop) == alive(QueuedCrop) == 0)
        assert kinds(results) == ["crop"] * 256
    assert 32 <= engine.most <= 64


async def test_cancelling_stops_decoding_further_files() -> None:
    engine = ScriptedEngine()
    registry = CollectorRegistry()

    async with running(engine, registry=registry) as service:
        engine.go.clear()
        request = asyncio.create_task(service.embed([flat(1)] * 256, Priority.BULK))
        await eventually(engine.busy.is_set)
        await eventually(lambda: registry.get_sample_value("passerby_embedding_queue_length") == 32)
        request.cancel()
        await asyncio.wait([request])
        engine.go.set()
        assert kinds(await service.embed([flat(2)], Priority.BULK)) == ["crop"]
    assert decoded(registry) == 64 + 1
    assert registry.get_sample_value("passerby_embedding_dropped_total") == 32


@pytest.mark.parametrize("priority", Priority)
async def test_large_pictures_do_not_hold_up_small_ones_and_requests_take_turns_with_them(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, priority: Priority
) -> None:
    large = encoded(Image.new("RGB", (2_100, 2_000)), "PNG")
    began, go, order = threading.Event(), threading.Event(), list[bytes]()

    def decode_large(content: bytes, *rest: Any) -> DecodedCrop:
        if content.startswith(large) and not isinstance(rest[-1], RefuseLarge):
            began.set()
            assert go.wait(10)
            order.append(content)
        return decode(content, *rest)

    monkeypatch.setattr("app.embedding.service.decode", decode_large)
    async with running(load_engines(tiny_checkpoint).workers[0]) as service:
        first = asyncio.create_task(service.embed([large + b"first"] * 20, priority))
        assert await asyncio.to_thread(began.wait, 10)
        second = asyncio.create_task(service.embed([large + b"second"], priority))
        small = await service.embed([encoded(picture(seed)) for seed in range(20)], priority)
        assert kinds(small) == ["crop"] * 20
        go.set()
        assert kinds(await second) == ["crop"]
        assert order[:2] == [large + b"first", large + b"second"]
        assert kinds(await first) == ["crop"] * 20


async def test_the_service_is_ready_from_warm_up_to_stop(tiny_checkpoint: Path) -> None:
    engine = ScriptedEngine()

    service = EmbeddingService(Engines([engine]), PictureLimits(), EmbeddingMetrics(CollectorRegistry()))
    assert service.trouble is not None
    await service.start()
    assert service.trouble is None
    assert [len(batch) for batch in engine.batches] == [1, 32]
    await service.stop()
    assert service.trouble is not None
    with pytest.raises(QueueClosed):
        await service.embed([flat(1)], Priority.SEARCH)


async def test_stopping_finishes_requests_whose_files_are_still_to_be_decoded() -> None:
    async with running(ScriptedEngine()) as service:
        request = asyncio.create_task(service.embed([flat(value) for value in range(200)], Priority.BULK))
        await asyncio.sleep(0)
        await service.stop()
        results = await request
    assert [int(result.parts[0, 0]) for result in results if isinstance(result, EmbeddedCrop)] == list(range(200))


async def test_stopping_answers_every_file_of_a_request_that_does_not_end_in_time() -> None:
    engine = ScriptedEngine()

    async with running(engine) as service:
        engine.go.clear()
        request = asyncio.create_task(service.embed([flat(1)] * 200, Priority.BULK))
        await eventually(engine.busy.is_set)
        await service.stop(drain_seconds=0.2)
        async with asyncio.timeout(10):
            results = await request
        engine.go.set()
        results = results
    assert kinds(results) == ["engine"] * 200


async def test_a_dead_engine_is_not_ready_and_all_callers_get_an_error() -> None:
    async with running(ScriptedEngine()) as service:
        async with asyncio.timeout(10):
            results = await service.embed([flat(1), flat(DIES), *[flat(2)] * 30], Priority.BULK)
        assert kinds(results) == ["engine"] * 32
        assert service.trouble is not None


async def test_a_model_with_non_finite_outputs_does_not_start() -> None:
    class Broken(ScriptedEngine):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return super().embed(crops) * np.float32("nan")

    service = EmbeddingService(Engines([Broken()]), PictureLimits(), EmbeddingMetrics(CollectorRegistry()))
    with pytest.raises(EngineError, match="tiny-0123456789ab cannot be used"):
        await service.start()
    assert service.trouble is not None
