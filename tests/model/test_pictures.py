"""What the library reads of picture files: the same pixels as a service, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint import InputFormat
from model.decoding import PictureLimits, decode
from model.errors import DataError
from model.pictures import read_inputs, read_picture
from model.training.inputs import cached_inputs
from model.visualize.thumbnails import read_thumbnail
from tests.app.factories import encoded, exif, laid, picture
from tests.cases import CASES

INPUT = InputFormat(height=192, width=96)
TRAIN_SERVE = CASES / "train_serve"


def transparent(mode: str) -> Image.Image:
    """A picture whose left half is transparent."""
    crop = picture(3).convert("RGBA")
    crop.paste((0, 255, 0, 0), (0, 0, crop.width // 2, crop.height))
    return crop.convert(mode)


def sixteen_bits() -> Image.Image:
    """A grey picture of 16 bits."""
    return Image.fromarray(np.asarray(picture(4).convert("L")).astype(np.uint16) * 257)


FILES = {
    **{f"turned-{n}.jpg": encoded(laid(picture(1), n), exif=exif(n)) for n in range(1, 9)},
    "turned.png": encoded(laid(picture(1), 6), "PNG", exif=exif(6)),
    "turned.webp": encoded(laid(picture(1), 8), "WEBP", exif=exif(8)),
    "transparent.png": encoded(transparent("RGBA"), "PNG"),
    "transparent.webp": encoded(transparent("RGBA"), "WEBP"),
    "transparent-grey.png": encoded(transparent("LA"), "PNG"),
    "transparent-palette.png": encoded(transparent("RGBA").quantize(16), "PNG"),
    "16-bits.png": encoded(sixteen_bits(), "PNG"),
    "16-bits-turned.png": encoded(sixteen_bits(), "PNG", exif=exif(6)),
    "1-bit.png": encoded(picture(5).convert("1"), "PNG"),
    "grey.jpg": encoded(picture(6).convert("L")),
    "cmyk.jpg": encoded(picture(7).convert("CMYK")),
    "large.jpg": encoded(picture(8, 1600, 800), exif=exif(6)),
    "wrong-suffix.jpg": encoded(picture(9), "PNG"),
}


def served(content: bytes) -> NDArray[np.uint8]:
    """The pixels of a crop that was posted to a service."""
    return decode(content, PictureLimits(), INPUT).pixels


@pytest.mark.parametrize("name", FILES)
def test_training_and_evaluation_read_the_pixels_that_a_service_embeds(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    expected = served(FILES[name])
    assert np.array_equal(read_inputs([path], INPUT)[0], expected)
    assert np.array_equal(cached_inputs([path], INPUT, tmp_path / "cache")[0], expected)


def test_files_of_real_systems_show_the_same_person_to_the_library_and_to_a_service() -> None:
    paths = sorted(TRAIN_SERVE.iterdir())
    inputs = dict(zip((path.stem for path in paths), read_inputs(paths, INPUT), strict=True))
    for path in paths:
        assert np.array_equal(inputs[path.stem], served(path.read_bytes())), path
    plain = inputs["plain"].astype(int)
    assert np.abs(inputs["exif_orientation_6"] - plain).mean() < 3, "two JPEGs of the same pixels, turned"
    assert np.abs(inputs["grey_16_bit"].mean(axis=2) - plain.mean(axis=2)).mean() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_whole_pictures_and_thumbnails_are_upright(orientation: int, tmp_path: Path) -> None:
    crop, path = picture(2), tmp_path / "crop.png"
    path.write_bytes(encoded(laid(crop, orientation), "PNG", exif=exif(orientation)))
    assert np.array_equal(np.asarray(read_picture(path)), np.asarray(crop))
    assert read_thumbnail(path, (32, 64)).size == (32, 64)


def test_bitmaps_and_crops_that_a_service_refuses_as_too_small_are_read(tmp_path: Path) -> None:
    small = picture(1, 12, 6)
    path = tmp_path / "001_45.bmp"
    small.save(path)
    assert np.array_equal(np.asarray(read_picture(path)), np.asarray(small))
    assert read_inputs([path], INPUT).shape == (1, 192, 96, 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no bytes"),
        (b"hello", "is no picture"),
        (encoded(picture(1))[:400], "damaged or cut off"),
        (encoded(picture(1), "GIF"), "GIF files are not read"),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "crop.jpg"
    path.write_bytes(content)
    for read in (lambda: read_picture(path), lambda: read_inputs([path], INPUT)):
        with pytest.raises(DataError, match=rf"crop\.jpg.*{problem}"):
            read()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        read_picture(tmp_path / "gone.jpg")


def test_a_cache_of_another_decoder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "crop.jpg"
    path.write_bytes(encoded(picture(1)))
    cached_inputs([path], INPUT, tmp_path / "cache")
    monkeypatch.setattr("model.training.inputs.PIXELS_VERSION", 10_000)
    cached_inputs([path], INPUT, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
