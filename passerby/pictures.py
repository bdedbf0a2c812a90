"""Pictures in all forms that the library takes: paths, bytes of files, Pillow's images and arrays."""

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.decoding import upright
from model.files import printable
from passerby.errors import PictureError

Picture = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, the bytes of a JPEG, PNG or WebP file, an image of Pillow, or an array.

An array is `(H, W, 3)` uint8 RGB, `(H, W, 4)` uint8 RGBA, or grey: `(H, W)` or `(H, W, 1)`, uint8 or uint16.
"""

Pictures = Picture | Iterable[Picture]
"""One picture, or several: a list, any other iterable, or an array `(N, H, W, C)`."""

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})

_FORMS = "give a path, the bytes of a file, an image of Pillow or an array"


def each(pictures: Pictures) -> Iterator[Picture]:
    """The pictures one by one. Raises PictureError where they are neither one picture nor several."""
    if isinstance(pictures, np.ndarray):
        yield from pictures if pictures.ndim == 4 else [pictures]
    elif isinstance(pictures, str | bytes | os.PathLike | Image.Image):
        yield pictures
    elif isinstance(pictures, Iterable):
        yield from pictures
    else:
        raise PictureError(f"{type(pictures).__name__} is no picture: {_FORMS}", 0, "not-a-picture")


def name_of(picture: Picture) -> str | None:
    """A picture's path as messages show it, if it is given as a path."""
    return printable(os.fspath(picture)) if isinstance(picture, str | os.PathLike) else None


def opened(picture: Picture, position: int) -> bytes | Image.Image:
    """The bytes of a picture's file, or an image of Pillow. Raises PictureError with `position`."""
    if isinstance(picture, bytes | Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return _of_array(picture, position)
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except (OSError, ValueError) as error:  # a ValueError for a path with a null character
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise PictureError(reason, position, "unreadable", name_of(picture)) from error
    raise PictureError(f"{type(picture).__name__} is no picture: {_FORMS}", position, "not-a-picture")


def file_of(picture: Picture, position: int) -> tuple[str, bytes]:
    """A picture as the name and the bytes of a file to post; images and arrays become a PNG, without loss.

    Raises PictureError with `position`.
    """
    content = opened(picture, position)
    if isinstance(content, bytes):
        return Path(name_of(picture) or f"{position}").name, content
    file = BytesIO()
    try:
        whole = upright(content)
        (whole if whole.mode in _PNG_MODES else whole.convert("RGB")).save(file, "PNG", compress_level=1)
    except Exception as error:  # on malformed data Pillow raises OSError, SyntaxError, struct.error and more
        raise PictureError(f"cannot be read: {error}", position, "damaged") from error
    return f"{position}.png", file.getvalue()


def _of_array(array: NDArray[Any], position: int) -> Image.Image:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    readable = (array.dtype == np.uint8 and (grey or colour)) or (array.dtype == np.uint16 and grey)
    if not readable or 0 in array.shape:
        raise PictureError(
            f"an array {array.shape} of {array.dtype} is no picture: give (height, width, 3) "
            "uint8 RGB, (height, width, 4) uint8 RGBA, or (height, width) grey of uint8 or uint16",
            position,
            "not-a-picture",
        )
    return Image.fromarray(np.ascontiguousarray(array.reshape(array.shape[:2]) if grey else array))
