"""Frames: a box becomes a JPEG with nearly the embedding of its pixels, and always the same one."""

import threading
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from app.embedding.engine import load_engines
from app.embedding.frames import Box, CropFile, PixelBox, cut
from model.checkpoint import BUNDLED
from model.datasets.synthetic import DRAWN_PEOPLE
from model.decoding import LARGE_PIXELS, PictureError, PictureLimits, decode
from tests.app.factories import encoded, exif, laid, picture

LIMITS = PictureLimits()


def cuts(frame: bytes, *boxes: Box, limits: PictureLimits = LIMITS) -> list[CropFile | PictureError]:
    return cut(frame, boxes, limits)


def only_cut(frame: bytes, box: Box) -> CropFile:
    (one,) = cuts(frame, box)
    assert isinstance(one, CropFile)
    return one


def error_of(one: CropFile, expected: Image.Image) -> float:
    """The mean difference of a JPEG's pixels from the expected ones, in grey levels of 0 to 255."""
    with Image.open(BytesIO(one.content)) as kept:
        assert (kept.format, kept.size, kept.mode) == ("JPEG", expected.size, "RGB")
        return float(np.abs(np.asarray(kept).astype(int) - np.asarray(expected.convert("RGB"))).mean())


def cut_out(frame: Image.Image, area: PixelBox) -> Image.Image:
    x, y, width, height = area
    return frame.crop((x, y, x + width, y + height))


def refusal(frame: bytes, *boxes: Box, limits: PictureLimits = LIMITS) -> PictureError:
    with pytest.raises(PictureError) as caught:
        cut(frame, boxes, limits)
    return caught.value


def frame_of(mode: str) -> Image.Image:
    """A frame in one of the modes that PNG knows; some of it transparent where the mode can say so."""
    colours = picture(1, 240, 320)
    if mode == "I;16":
        return Image.fromarray(np.arange(240 * 320, dtype=np.uint16).reshape(240, 320))
    if mode == "RGBA":
        colours.putalpha(Image.linear_gradient("L").resize(colours.size))
        return colours
    return colours.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_box_becomes_a_jpeg_of_its_pixels_in_the_frame(mode: str) -> None:
    frame = frame_of(mode)
    boxes = [Box(0, 0, 320, 240), Box(17, 33, 61, 150), Box(255, 5, 65, 235), Box(100, 100, 96, 96)]
    for box, one in zip(boxes, cuts(encoded(frame, "PNG"), *boxes), strict=True):
        assert isinstance(one, CropFile)
        assert one.box == (box.x, box.y, box.width, box.height)
        assert error_of(one, opaque(cut_out(frame, one.box))) < 3


def opaque(frame: Image.Image) -> Image.Image:
    """A frame as a crop shows it: transparent pixels in the mean colour of ImageNet, 16 bits as 8."""
    if frame.mode == "I;16":
        return Image.fromarray((np.asarray(frame) >> 8).astype(np.uint8))
    ground = Image.new("RGBA", frame.size, (124, 116, 104))
    return Image.alpha_composite(ground, frame.convert("RGBA"))


def test_the_file_of_a_box_has_nothing_else_of_the_frame() -> None:
    block = exif(1)
    block[0x010F] = "the maker"
    content = encoded(picture(2, 240, 320), exif=block, comment=b"north gate", quality=100, subsampling="4:4:4")
    with Image.open(BytesIO(only_cut(content, Box(40, 50, 60, 120)).content)) as kept:
        assert not kept.getexif()
        assert "comment" not in kept.info


def test_the_same_box_of_the_same_frame_is_the_same_file() -> None:
    frame = encoded(picture(3, 240, 320))
    one, other, elsewhere = cuts(frame, Box(10, 20, 64, 128), Box(10.2, 19.9, 64.1, 128), Box(11, 20, 64, 128))
    assert isinstance(one, CropFile)
    assert isinstance(other, CropFile)
    assert isinstance(elsewhere, CropFile)
    assert one.content == other.content == only_cut(frame, Box(10, 20, 64, 128)).content != elsewhere.content


def test_the_file_of_a_box_has_nearly_the_embedding_of_its_pixels() -> None:
    frame = Image.new("RGB", (8 * 100, 200), (90, 100, 80))
    people = [Image.open(path) for path in sorted(DRAWN_PEOPLE.glob("*/*_01.jpg"))[:8]]
    for place, person in enumerate(people):
        frame.paste(person, (100 * place, 20))
    boxes = [Box(100 * place, 20, *person.size) for place, person in enumerate(people)]
    engine = load_engines(BUNDLED.with_suffix(".onnx"), threads=1).workers[0]

    def embedded(files: list[bytes]) -> NDArray[np.float32]:
        return engine.embed(np.stack([decode(file, LIMITS, engine.metadata.input).pixels for file in files]))

    crops = [one.content for one in cuts(encoded(frame, "PNG"), *boxes) if isinstance(one, CropFile)]
    assert len(crops) == len(people) == 8
    cosines = (embedded([encoded(person, "PNG") for person in people]) * embedded(crops)).sum(axis=(1, 2))
    assert cosines.min() > 0.9985
    assert cosines.mean() > 0.9995


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_in_the_upright_frame(orientation: int) -> None:
    upright = picture(4, 240, 320)
    content = encoded(laid(upright, orientation), "PNG", exif=exif(orientation))
    one = only_cut(content, Box(230, 10, 80, 200))
    assert error_of(one, upright.crop((230, 10, 310, 210))) < 3


def test_a_large_jpeg_frame_is_decoded_in_all_its_pixels() -> None:
    frame = encoded(picture(5, 2160, 3840), quality=80)
    with Image.open(BytesIO(frame)) as whole:
        assert error_of(only_cut(frame, Box(3000, 1500, 80, 200)), whole.crop((3000, 1500, 3080, 1700))) < 3


def test_a_box_beyond_the_edge_is_clipped_and_reports_its_area() -> None:
    frame = encoded(picture(6, 240, 320), "PNG")
    assert only_cut(frame, Box(-20, 100, 70.4, 300)).box == (0, 100, 50, 140)
    assert only_cut(frame, Box(-1e308, -1e308, 1.5e308, 1.5e308)).box == (0, 0, 320, 240)


def test_a_bad_box_fails_alone_with_its_reason() -> None:
    good, outside, thin, negative = cuts(
        encoded(picture(7, 240, 320), "PNG"),
        Box(10, 10, 60, 120),
        Box(320, 10, 60, 120),
        Box(-50, 10, 65, 120),
        Box(60, 10, -30, 120),
    )
    assert isinstance(good, CropFile)
    assert isinstance(outside, PictureError)
    assert outside.kind == "outside-frame"
    assert "[320, 10, 60, 120] of a frame of 320 x 240 pixels" in str(outside)
    assert isinstance(thin, PictureError)
    assert thin.kind == "too-small"
    assert "shows 15 x 120 of it, each side needs 16" in str(thin)
    assert isinstance(negative, PictureError)
    assert negative.kind == "too-small"


@given(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4))
def test_no_box_is_ever_cut_outside_the_frame(numbers: tuple[float, float, float, float]) -> None:
    box = Box(*numbers)
    try:
        x, y, width, height = box.within((320, 240), 16)
    except PictureError:
        return
    assert 0 <= x <= x + width <= 320
    assert 0 <= y <= y + height <= 240
    assert min(width, height) >= 16
    assert abs(x - min(max(box.x, 0), 320)) <= 0.5


def test_a_box_of_more_pixels_a_side_than_a_jpeg_can_have_fails_alone() -> None:
    frame = encoded(Image.new("RGB", (70_000, 20)), "PNG")
    wide, narrow = cuts(frame, Box(0, 0, 66_000, 20), Box(0, 0, 65_500, 20))
    assert isinstance(wide, PictureError)
    assert wide.kind == "too-many-pixels"
    assert isinstance(narrow, CropFile)


def test_a_frame_that_cannot_be_used_is_an_error_of_its_own() -> None:
    frame = encoded(picture(8, 240, 320))
    box = Box(10, 10, 60, 120)
    assert refusal(b"", box).kind == "empty"
    assert refusal(b"no picture", box).kind == "not-a-picture"
    assert refusal(frame[:-200], box).kind == "damaged"
    assert refusal(frame, box, limits=PictureLimits(max_pixels=320 * 240 - 1)).kind == "too-many-pixels"
    assert refusal(frame, box, limits=PictureLimits(max_bytes=len(frame) - 1)).kind == "too-many-bytes"


def test_boxes_have_no_more_pixels_together_than_one_picture_may_have() -> None:
    frame = encoded(picture(9, 240, 320), "PNG")
    limits = PictureLimits(max_pixels=320 * 240)
    half = Box(0, 0, 160, 240)
    assert [type(one) for one in cuts(frame, half, half, Box(-500, 0, 400, 240), limits=limits)] == [
        CropFile,
        CropFile,
        PictureError,
    ]
    assert refusal(frame, half, half, Box(0, 0, 16, 16), limits=limits).kind == "too-many-pixels"


def test_the_lock_of_large_pictures_is_held_until_a_large_frame_is_gone() -> None:
    class Watched:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.taken = 0

        def __enter__(self) -> None:
            self.lock.acquire()
            self.taken += 1

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    large, box = Watched(), Box(10, 10, 60, 120)
    cut(encoded(picture(10, 1080, 1920)), [box], LIMITS, large)
    assert large.taken == 0
    cut(encoded(picture(10, 2000, 1 + LARGE_PIXELS // 2000)), [box], LIMITS, large)
    assert (large.taken, large.lock.locked()) == (1, False)
