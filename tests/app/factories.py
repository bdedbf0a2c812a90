"""Pictures for the service's tests."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image


def random_pixels(seed: int, height: int = 128, width: int = 64) -> NDArray[np.uint8]:
    """Patches of random colours, `(height, width, 3)`, which survive JPEG well."""
    patches = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.kron(patches, np.ones((16, 16, 1), dtype=np.uint8))[:height, :width]


def picture(seed: int, height: int = 128, width: int = 64) -> Image.Image:
    """A picture of `random_pixels`."""
    return Image.fromarray(random_pixels(seed, height, width))


def encoded(picture: Image.Image, pillow_format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a file that holds `picture`; `options` as Pillow's save takes them."""
    file = BytesIO()
    picture.save(file, pillow_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An EXIF block with an orientation."""
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block


def laid(upright: Image.Image, orientation: int) -> Image.Image:
    """A picture transposed so that its EXIF orientation sets it upright again."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    return upright if undo is None else upright.transpose(undo)
