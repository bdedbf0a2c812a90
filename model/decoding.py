"""Checks and decodes pictures to crops in the network's input size, the same in training and in the service."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from model.checkpoint import InputFormat
from model.transforms import to_input

MediaType = Literal["image/jpeg", "image/png", "image/webp", "image/bmp"]

POSTED_TYPES: frozenset[MediaType] = frozenset({"image/jpeg", "image/png", "image/webp"})
"""What a service reads: the formats that browsers show and that have a checked end."""

PictureErrorKind = Literal[
    "not-a-picture",
    "unsupported-format",
    "too-many-pixels",
    "too-many-scans",
    "too-small",
    "outside-frame",
    "too-many-bytes",
    "empty",
    "damaged",
]

DRAFT_MARGIN = 2
"""A large JPEG is decoded at a half, a quarter or an eighth of its size, but never below this many times the
input's longer side: the crop then differs from that of the whole picture by less than half a grey level."""

NO_LOCK = nullcontext()
"""For decoding in a single thread."""

LARGE_PIXELS = 4_000_000
"""A picture of more pixels is large; Pillow takes up to 16 bytes a pixel while it decodes one."""

MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans of a JPEG times its pixels: the largest pictures may have twenty, of which progressive ones have about ten.
It bounds the time for a picture, as every scan goes through all pixels."""

PIXELS_VERSION = 2
"""Increased with each change of the pixels that a file decodes to: cached pixels of another version are not used."""

_PILLOW_FORMATS: dict[MediaType, str] = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
}

_OTHER_SIGNATURES = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\1\0": "icon",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
}

_BACKGROUND = (0.485, 0.456, 0.406)
"""The colour of a whole picture's transparent pixels, RGB in 0..1: ImageNet's mean, as in nearly all checkpoints."""

_USE_INSTEAD = "use JPEG, PNG or WebP"

_UNREADABLE_MODES = frozenset({"I", "F", "I;16B", "I;16L", "I;16N"})
"""Modes that no file has which is read, and whose range of values is not known."""

_PNG_END = b"IEND\xaeB`\x82"

_JPEG_SCAN = b"\xff\xda"

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that sets a picture upright, by its EXIF orientation."""

_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


class LargePicture(Exception):
    """The picture has more than LARGE_PIXELS, see RefuseLarge."""


class RefuseLarge(AbstractContextManager[None]):
    """In place of a lock: raises LargePicture for large pictures, before they are decoded."""

    def __enter__(self) -> None:
        raise LargePicture

    def __exit__(self, *_: object) -> None:
        """Nothing was entered."""


class PictureError(Exception):
    """The picture cannot be used; `kind` is the reason, the message says what to do."""

    def __init__(self, kind: PictureErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class PictureLimits:
    """The limits of a picture: at most `max_pixels` and `max_bytes`, each side at least `min_side` pixels.

    Pillow refuses pictures of more than 179 million pixels, whatever `max_pixels` is.
    """

    max_pixels: int = 50_000_000
    min_side: int = 16
    max_bytes: int = 64 * 2**20
    media_types: frozenset[MediaType] = POSTED_TYPES


@dataclass(frozen=True)
class PictureFacts:
    """Format and size of a file; `width` and `height` are those of the upright picture, in pixels."""

    media_type: MediaType
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class DecodedCrop:
    """A decoded picture; pixels: `(h, w, 3)` uint8 RGB in the network's input size."""

    facts: PictureFacts
    pixels: NDArray[np.uint8]


def decode(
    content: bytes,
    limits: PictureLimits,
    input_format: InputFormat,
    large_picture_lock: AbstractContextManager[object] = NO_LOCK,
) -> DecodedCrop:
    """Check and decode a picture; of an animation the first frame.

    EXIF orientation is applied. Transparent pixels get the mean colour of `input_format`, which is zero after
    normalisation; the network has learned from random erasing to ignore it. `large_picture_lock` is held while a
    picture of more than LARGE_PIXELS is decoded: a lock that threads share bounds their memory. Raises PictureError.
    """
    media_type = _check_bytes(content, limits)
    with _picture_errors(limits), _opened(content, media_type, limits) as picture, _held(large_picture_lock, picture):
        width, height = picture.size
        if media_type == "image/jpeg":
            side = DRAFT_MARGIN * max(input_format.size)
            picture.draft(picture.mode, (side, side))
        pixels = _pixels(picture, input_format)
        if _turn(picture) in _SIDEWAYS:
            width, height = height, width
    return DecodedCrop(PictureFacts(media_type, width, height), pixels)


def decode_opened(picture: Image.Image, limits: PictureLimits, input_format: InputFormat) -> NDArray[np.uint8]:
    """The pixels of a picture that Pillow has opened, in the form of `DecodedCrop`. Raises PictureError.

    They are those of its file, except that a large JPEG is decoded at its full size.
    """
    if picture.mode in _UNREADABLE_MODES:
        raise PictureError("unsupported-format", f"Pillow's mode {picture.mode} has more than 8 bits: convert to RGB")
    with _picture_errors(limits):
        _check_size(*picture.size, limits)
        return _pixels(picture, input_format)


@contextmanager
def whole_picture(
    content: bytes,
    limits: PictureLimits,
    large_picture_lock: AbstractContextManager[object] = NO_LOCK,
) -> Iterator[Image.Image]:
    """All pixels of a picture as RGB, upright, and opaque in a way that no model changes.

    `large_picture_lock` is held during the context. Raises PictureError.
    """
    media_type = _check_bytes(content, limits)
    with _picture_errors(limits):
        picture = _opened(content, media_type, limits)
    with picture, _held(large_picture_lock, picture):
        with _picture_errors(limits):
            opaque = _opaque(upright(picture), _BACKGROUND)
            whole = opaque if opaque.mode == "RGB" else opaque.convert("RGB")
        yield whole


def upright(picture: Image.Image) -> Image.Image:
    """Decode a picture to 8 bits a channel, and rotate it by its EXIF orientation; a broken EXIF block is ignored."""
    turn = _turn(picture)
    if picture.mode == "I;16":  # Pillow would clip 16 bits to 8
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture if turn is None else picture.transpose(turn)


def _pixels(picture: Image.Image, input_format: InputFormat) -> NDArray[np.uint8]:
    return to_input(_opaque(upright(picture), input_format.mean), input_format.size, input_format.interpolation)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    picture.load()  # the EXIF block of a PNG may follow the pixels
    try:
        return _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises struct.error, SyntaxError and more for malformed EXIF
        return None


def _check_bytes(content: bytes, limits: PictureLimits) -> MediaType:
    if not content:
        raise PictureError("empty", "the file has no bytes: was the upload cut off?")
    if len(content) > limits.max_bytes:
        raise PictureError(
            "too-many-bytes",
            f"the file has {len(content):,} bytes, {limits.max_bytes:,} are allowed: make it smaller",
        )
    media_type = _media_type(content)
    if media_type not in limits.media_types:
        raise PictureError("unsupported-format", f"{_PILLOW_FORMATS[media_type]} files are not read: {_USE_INSTEAD}")
    return media_type


@contextmanager
def _picture_errors(limits: PictureLimits) -> Iterator[None]:
    """Convert Pillow's exceptions to PictureError."""
    try:
        yield
    except (PictureError, LargePicture, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(
            "too-many-pixels", f"the picture has more pixels than the {limits.max_pixels:,} that are allowed"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError("damaged", "the file is damaged or cut off: its header cannot be read") from error
    except Exception as error:  # on malformed data Pillow raises OSError, SyntaxError, struct.error and more
        raise PictureError("damaged", f"the file is damaged or cut off: {error}") from error


def _opened(content: bytes, media_type: MediaType, limits: PictureLimits) -> Image.Image:
    """A picture with a checked header; its pixels are not decoded yet."""
    picture = Image.open(BytesIO(content), formats=(_PILLOW_FORMATS[media_type],))
    _check_size(*picture.size, limits)
    if media_type == "image/jpeg":
        _check_scans(content, picture)
    if media_type == "image/png" and _PNG_END not in content:  # Pillow accepts such a file
        raise PictureError("damaged", "the file is damaged or cut off: the PNG has no end")
    return picture


def _held(large_picture_lock: AbstractContextManager[object], picture: Image.Image) -> AbstractContextManager[object]:
    return large_picture_lock if picture.width * picture.height > LARGE_PIXELS else NO_LOCK


def _check_scans(content: bytes, picture: Image.Image) -> None:
    """Raise PictureError for a JPEG with so many scans that it takes long to decode."""
    scans = content.count(_JPEG_SCAN)  # with those of a thumbnail in its EXIF block
    if scans * picture.width * picture.height > MAX_SCANNED_PIXELS:
        raise PictureError(
            "too-many-scans",
            f"the JPEG has {scans:,} scans of {picture.width} x {picture.height} pixels, which take long to decode: "
            "save it again, as a usual JPEG",
        )


def _check_size(width: int, height: int, limits: PictureLimits) -> None:
    if width * height > limits.max_pixels:
        raise PictureError(
            "too-many-pixels",
            f"the picture has {width} x {height} pixels, {limits.max_pixels:,} are allowed: make it smaller",
        )
    if min(width, height) < limits.min_side:
        raise PictureError(
            "too-small",
            f"the picture has {width} x {height} pixels, each side needs {limits.min_side}: make it larger",
        )


def _opaque(picture: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    red, green, blue = (round(255 * share) for share in mean)
    ground = Image.new("RGB", picture.size, (red, green, blue))
    colours = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    ground.paste(colours, mask=colours)
    return ground


def _media_type(content: bytes) -> MediaType:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content.startswith(b"BM"):
        return "image/bmp"
    if content[4:8] == b"ftyp":
        other: str | None = "HEIC, AVIF or video"
    else:
        other = next((name for start, name in _OTHER_SIGNATURES.items() if content.startswith(start)), None)
    if other is None:
        raise PictureError("not-a-picture", f"the file is no picture: {_USE_INSTEAD}")
    raise PictureError("unsupported-format", f"{other} files are not read: {_USE_INSTEAD}")
