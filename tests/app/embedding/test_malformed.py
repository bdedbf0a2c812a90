"""Thousands of malformed files among good ones: each gets the right error, and memory stays constant."""

import asyncio
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from app.embedding.crop_queue import Priority
from app.embedding.engine import Engine, Engines, load_engines
from app.embedding.metrics import EmbeddingMetrics
from app.embedding.service import EmbeddedCrop, EmbeddingService, Result
from model.decoding import PictureError, PictureLimits, decode
from tests.app.factories import encoded, picture
from tests.mutating import mutated

OTHER_FRAME = picture(0, 64, 32)

BAD = 10_000
GOOD = 2_000
LIMITS = PictureLimits(max_pixels=1_000_000, min_side=16, max_bytes=200_000)
MAX_GROWTH = 80 * 2**20
"""Bytes by which the process may grow once it is warm; keeping the decoded files would take several times that."""


@dataclass(frozen=True)
class File:
    """A file and its expected outcome: `crop`, or the kind of its PictureError; None: as `decode` decides."""

    content: bytes
    kind: str | None


def good(rng: random.Random) -> bytes:
    """A unique picture of any accepted format."""
    one = picture(rng.randrange(2**32), 64, 32)
    sideways = Image.Exif()
    sideways[0x0112] = rng.randrange(1, 9)
    makers: list[Callable[[], bytes]] = [
        lambda: encoded(one),
        lambda: encoded(one, progressive=True, quality=60),
        lambda: encoded(one, exif=sideways),
        lambda: encoded(one.convert("L")),
        lambda: encoded(one.convert("CMYK")),
        lambda: encoded(one, "MPO", save_all=True, append_images=[OTHER_FRAME]),
        lambda: encoded(one, "PNG"),
        lambda: encoded(one.convert("P"), "PNG", transparency=1),
        lambda: encoded(one.convert("RGBA"), "PNG"),
        lambda: encoded(of_sixteen_bits(one), "PNG"),
        lambda: encoded(one, "PNG", save_all=True, append_images=[OTHER_FRAME]),
        lambda: encoded(one, "WEBP", method=0),
        lambda: encoded(one, "WEBP", lossless=True, method=0, exif=sideways),
        lambda: encoded(one, "WEBP", method=0, save_all=True, append_images=[OTHER_FRAME]),
    ]
    return rng.choice(makers)()


def of_sixteen_bits(one: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(one.convert("L")).astype(np.uint16) * 257)


def cut_off(rng: random.Random) -> File:
    """A picture whose end is missing; its format shows in the first twelve bytes."""
    whole = good(rng)
    return File(whole[: rng.randrange(12, len(whole) // 2)], "damaged")


def bomb(rng: random.Random) -> File:
    """Few bytes with far too many pixels, in the header or compressed."""
    side = rng.choice((1_001, 5_000, 20_000, 60_000, 2**31 - 1))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0" * rng.choice((10, 1_000_000)), 9))
    return File(b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b""), "too-many-pixels")


def text_bomb() -> File:
    """A picture with a text chunk that decompresses to a hundred megabytes."""
    whole = encoded(OTHER_FRAME, "PNG")
    at = whole.index(b"IDAT") - 4
    return File(whole[:at] + png_chunk(b"zTXt", b"note\0\0" + LONG_NOTE) + whole[at:], "damaged")


LONG_NOTE = zlib.compress(b"\0" * 100_000_000, 9)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge(rng: random.Random, pillow_format: str, **options: int) -> File:
    """A real picture with more pixels than are allowed."""
    colour = (rng.randrange(256), 0, 0)
    return File(encoded(Image.new("RGB", (1_001, 1_000), colour), pillow_format, **options), "too-many-pixels")


def bad(rng: random.Random) -> File:
    """A malformed or mutated file."""
    makers: list[Callable[[], File]] = [
        lambda: File(b"", "empty"),
        lambda: File(bytes(rng.randrange(1, 3_000)), "not-a-picture"),
        lambda: File(b"text " + rng.randbytes(rng.randrange(500)), "not-a-picture"),
        lambda: File(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-a-picture"),
        lambda: File(encoded(OTHER_FRAME, rng.choice(("GIF", "BMP", "TIFF", "ICO"))), "unsupported-format"),
        lambda: File(b"%PDF-1.7" + rng.randbytes(100), "unsupported-format"),
        lambda: File(encoded(picture(0, 15, 200), rng.choice(("JPEG", "PNG", "WEBP"))), "too-small"),
        lambda: File(good(rng) + bytes(200_000), "too-many-bytes"),
        lambda: File(b"\xff\xd8\xff" + rng.randbytes(rng.randrange(200)), None),
        lambda: bomb(rng),
        *[lambda: cut_off(rng)] * 4,
        *[lambda: File(mutated(good(rng), rng), None)] * 6,
    ]
    return rng.choice(makers)()


def outcome(content: bytes, engine: Engine) -> tuple[str, np.ndarray | None]:
    """The outcome of a file that is decoded alone."""
    try:
        return "crop", engine.embed(decode(content, LIMITS, engine.metadata.input).pixels[None])[0]
    except PictureError as error:
        return error.kind, None


def check(file: File, result: Result, engine: Engine) -> str:
    """Check a file's outcome, and return it."""
    kind, parts = outcome(file.content, engine)
    assert file.kind in (None, kind)
    if parts is None:
        assert isinstance(result, PictureError)
        assert result.kind == kind
        assert len(str(result)) > 20
    else:
        assert isinstance(result, EmbeddedCrop)
        assert np.abs(result.parts - parts).max() < 1e-5
    return kind


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's warnings
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
async def test_good_files_among_ten_thousand_bad_ones_are_embedded_in_constant_memory(
    tiny_checkpoint: Path, seed: int
) -> None:
    rng = random.Random(seed)
    engine = load_engines(tiny_checkpoint, threads=1).workers[0]
    kinds = Counter[str]()
    memory: list[int] = []

    def files() -> list[File]:
        return [File(good(rng), "crop") if rng.random() < GOOD / (GOOD + BAD) else bad(rng) for _ in range(100)]

    async def client(service: EmbeddingService) -> None:
        given = [*files(), rng.choice((text_bomb, lambda: huge(rng, "JPEG"), lambda: huge(rng, "WEBP", method=0)))()]
        rng.shuffle(given)
        results = await service.embed([file.content for file in given], rng.choice(list(Priority)))
        kinds.update(check(file, result, engine) for file, result in zip(given, results, strict=True))

    registry = CollectorRegistry()
    service = EmbeddingService(Engines([engine]), LIMITS, EmbeddingMetrics(registry), capacity=1024)
    await service.start()
    while kinds.total() < GOOD + BAD:
        await asyncio.gather(*(client(service) for _ in range(5)))
        memory.append(psutil.Process().memory_info().rss)
    assert service.trouble is None
    await service.stop()
    print(kinds, [size >> 20 for size in memory])
    assert kinds["crop"] >= GOOD
    assert min(kinds[kind] for kind in ("damaged", "empty", "not-a-picture", "too-many-bytes", "too-many-pixels")) > 100
    assert min(kinds[kind] for kind in ("too-small", "unsupported-format")) > 100
    rejected = registry.get_sample_value("passerby_embedding_rejected_total", {"reason": "damaged"})
    assert rejected == kinds["damaged"]
    assert memory[-1] - memory[len(memory) // 4] < MAX_GROWTH, [size >> 20 for size in memory]
