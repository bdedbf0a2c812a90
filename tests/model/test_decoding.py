"""Decoding: accepted formats, limits, pixels, and that only PictureError is raised."""

import random
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint import InputFormat
from model.decoding import DecodedCrop, PictureError, PictureLimits, decode
from model.transforms import to_input
from tests.app.factories import encoded, exif, laid, picture
from tests.mutating import mutated

CASES = Path(__file__).parents[1] / "cases"

INPUT = InputFormat(height=192, width=96)
LIMITS = PictureLimits()
FORMATS = ("JPEG", "PNG", "WEBP")


def decoded(content: bytes, limits: PictureLimits = LIMITS) -> DecodedCrop:
    return decode(content, limits, INPUT)


def refusal(content: bytes, limits: PictureLimits = LIMITS) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(content, limits, INPUT)
    return caught.value


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


@pytest.mark.parametrize(
    ("pillow_format", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]
)
def test_each_format_is_detected_by_its_content(pillow_format: str, media_type: str) -> None:
    content = encoded(picture(1), pillow_format)
    crop = decoded(content)
    assert (crop.facts.media_type, crop.facts.width, crop.facts.height) == (media_type, 64, 128)
    assert crop.pixels.shape == (192, 96, 3)
    assert crop.pixels.dtype == np.uint8


@pytest.mark.parametrize("pillow_format", FORMATS)
def test_a_crop_has_exactly_the_pixels_that_training_sees(pillow_format: str) -> None:
    content = encoded(picture(2), pillow_format)
    with Image.open(BytesIO(content)) as opened:
        expected = to_input(opened, INPUT.size, INPUT.interpolation)
    assert np.array_equal(decoded(content).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow_format", FORMATS)
def test_exif_orientation_sets_the_picture_upright(orientation: int, pillow_format: str) -> None:
    upright = picture(3)
    content = encoded(laid(upright, orientation), pillow_format, exif=exif(orientation), quality=100)
    crop = decoded(content)
    assert (crop.facts.width, crop.facts.height) == (64, 128)
    assert difference(crop.pixels, to_input(upright, INPUT.size, INPUT.interpolation)) < 6


def test_a_lack_of_memory_is_no_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise MemoryError

    content = encoded(picture(2), "PNG")
    monkeypatch.setattr(Image.Image, "load", convert)
    with pytest.raises(MemoryError):
        decode(content, LIMITS, INPUT)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(orientation: int) -> None:
    assert decoded(encoded(picture(4), exif=exif(orientation))).facts.width == 64


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's warnings
def test_a_broken_exif_block_is_ignored() -> None:
    good = encoded(picture(4), exif=exif(6))
    at = good.index(b"Exif\0\0") + 6
    for broken in (good[:at] + b"XX" + good[at + 2 :], good[:at] + b"II*\0\xff\xff\xff\xff" + good[at + 8 :]):
        assert (decoded(broken).facts.width, decoded(broken).facts.height) == (64, 128)


def test_transparent_pixels_become_the_mean_colour() -> None:
    mean = np.array([round(255 * value) for value in INPUT.mean])
    clear = picture(5).convert("RGBA")
    clear.putalpha(0)
    palette = Image.new("P", (64, 128), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    grey = Image.new("LA", (64, 128), (200, 0))
    for content in (
        encoded(clear, "PNG"),
        encoded(clear, "WEBP", lossless=True, exact=True),
        encoded(palette, "PNG", transparency=0),
        encoded(grey, "PNG"),
        encoded(Image.new("RGB", (64, 128), (9, 8, 7)), "PNG", transparency=(9, 8, 7)),
    ):
        assert np.array_equal(decoded(content).pixels, np.broadcast_to(mean, (192, 96, 3)))


def test_opaque_pixels_keep_their_colour_beside_transparency() -> None:
    opaque = picture(6)
    content = encoded(opaque.convert("RGBA"), "PNG")
    assert np.array_equal(decoded(content).pixels, to_input(opaque, INPUT.size, INPUT.interpolation))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.full((128, 64), 0x80FF, dtype=np.uint16))
    assert np.all(decoded(encoded(deep, "PNG")).pixels == 0x80)


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    converted = picture(7).convert(mode)
    content = encoded(converted, "JPEG", quality=100) if mode == "CMYK" else encoded(converted, "PNG")
    crop = decoded(content)
    assert difference(crop.pixels, to_input(converted, INPUT.size, INPUT.interpolation)) < 6


@pytest.mark.parametrize("pillow_format", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(pillow_format: str) -> None:
    content = encoded(picture(8), pillow_format, save_all=True, append_images=[picture(9)], lossless=True)
    expected = to_input(picture(8), INPUT.size, INPUT.interpolation)
    assert difference(decoded(content).pixels, expected) < 1


def test_the_first_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    crop = decoded(encoded(picture(8), "MPO", save_all=True, append_images=[picture(9)]))
    assert crop.facts.media_type == "image/jpeg"
    assert difference(crop.pixels, to_input(picture(8), INPUT.size, INPUT.interpolation)) < 6


@pytest.mark.parametrize(("height", "width"), [(3072, 1536), (1536, 3072)])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_gives_nearly_the_same_crop(
    height: int, width: int
) -> None:
    noise = np.random.default_rng(10).normal(0, 20, (height, width, 3))
    large = (np.asarray(picture(10).resize((width, height), Image.Resampling.BICUBIC)) + noise).clip(0, 255)
    content = encoded(Image.fromarray(large.astype(np.uint8)), quality=92)
    with Image.open(BytesIO(content)) as whole:
        expected = to_input(whole, INPUT.size, INPUT.interpolation)
    crop = decoded(content)
    assert (crop.facts.width, crop.facts.height) == (width, height)
    assert 0 < difference(crop.pixels, expected) < 0.5


@pytest.mark.parametrize("content", [b"hello, this is no picture", b"<svg></svg>", b"\0" * 100, b"\xff\xd8"])
def test_other_bytes_are_no_picture(content: bytes) -> None:
    assert refusal(content).kind == "not-a-picture"


@pytest.mark.parametrize("pillow_format", ["GIF", "BMP", "TIFF", "ICO", "AVIF"])
def test_other_formats_are_refused_by_name(pillow_format: str) -> None:
    assert refusal(encoded(picture(11), pillow_format)).kind == "unsupported-format"


def test_no_bytes_are_empty() -> None:
    assert refusal(b"").kind == "empty"


def test_limits_hold_to_the_last_byte_and_pixel() -> None:
    content = encoded(picture(12))
    exact = PictureLimits(max_pixels=64 * 128, min_side=64, max_bytes=len(content))
    assert decoded(content, exact).facts.width == 64
    assert refusal(content, PictureLimits(max_pixels=64 * 128 - 1)).kind == "too-many-pixels"
    assert refusal(content, PictureLimits(min_side=65)).kind == "too-small"
    assert refusal(content, PictureLimits(max_bytes=len(content) - 1)).kind == "too-many-bytes"


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000, 2**31 - 1])
def test_a_huge_header_is_refused_before_anything_is_decoded(side: int) -> None:
    bomb = png_header(side, side) + png_chunk(b"IDAT", zlib.compress(b"\0" * 10_000)) + png_chunk(b"IEND", b"")
    started = time.thread_time()  # of this thread alone: other work on the machine does not count
    assert refusal(bomb).kind == "too-many-pixels"
    assert time.thread_time() - started < 0.2


def test_a_jpeg_of_thousands_of_scans_is_refused_before_anything_is_decoded() -> None:
    content = (CASES / "jpeg_prog_scans.jpg").read_bytes()
    started = time.thread_time()
    error = refusal(content)
    assert error.kind == "too-many-scans"
    assert "2,010 scans of 4000 x 3000 pixels" in str(error)
    assert time.thread_time() - started < 0.2


def test_a_large_progressive_jpeg_is_read() -> None:
    content = encoded(Image.new("RGB", (7_000, 7_000)), progressive=True)
    assert content.count(b"\xff\xda") > 5
    assert decoded(content).facts.width == 7_000


@pytest.mark.parametrize("pillow_format", FORMATS)
def test_a_picture_that_is_cut_off_anywhere_is_damaged(pillow_format: str) -> None:
    content = encoded(picture(13), pillow_format)
    for length in range(12, len(content)):
        assert refusal(content[:length]).kind == "damaged"


def test_trailing_bytes_are_ignored() -> None:
    for pillow_format in FORMATS:
        assert decoded(encoded(picture(14), pillow_format) + b"\0" * 50).facts.width == 64


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_files_give_a_crop_or_a_picture_error(seed: int) -> None:
    rng = random.Random(seed)
    good = [
        encoded(picture(15), "JPEG", exif=exif(6)),
        encoded(picture(15), "JPEG", progressive=True),
        encoded(picture(15).convert("CMYK"), "JPEG"),
        encoded(picture(15), "MPO", save_all=True, append_images=[picture(16)]),
        encoded(picture(15), "PNG", exif=exif(3)),
        encoded(picture(15).convert("P"), "PNG", transparency=1),
        encoded(picture(15), "PNG", save_all=True, append_images=[picture(16)]),
        encoded(picture(15), "WEBP"),
        encoded(picture(15).convert("RGBA"), "WEBP", lossless=True, exif=exif(8)),
        encoded(picture(15), "WEBP", save_all=True, append_images=[picture(16)]),
    ]
    outcomes = {"crop": 0, "error": 0}
    for _ in range(3_000):
        try:
            crop = decoded(mutated(rng.choice(good), rng))
            assert crop.pixels.shape == (192, 96, 3)
            outcomes["crop"] += 1
        except PictureError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 100
