"""Reading picture files: whole, or many in parallel as the network's input."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint import InputFormat
from model.decoding import MediaType, PictureError, PictureLimits, decode, whole_picture
from model.errors import DataError

LIMITS = PictureLimits(min_side=1, media_types=frozenset(get_args(MediaType)))
"""Data sets have smaller crops than a service accepts, and other formats: VIPeR is BMP."""


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, upright and opaque. Raises DataError with the path."""
    try:
        with whole_picture(_content(path), LIMITS) as picture:
            return picture.copy()
    except PictureError as error:
        raise _unreadable(path, error) from error


def read_inputs(paths: Sequence[Path], input_format: InputFormat) -> NDArray[np.uint8]:
    """The crops as a service decodes them: `(N, height, width, 3)` uint8 RGB. Raises DataError with the path."""
    inputs = np.empty((len(paths), *input_format.size, 3), dtype=np.uint8)
    large_picture_lock = Lock()

    def read(position: int) -> None:
        path = paths[position]
        try:
            inputs[position] = decode(_content(path), LIMITS, input_format, large_picture_lock).pixels
        except PictureError as error:
            raise _unreadable(path, error) from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(paths))))
    return inputs


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} as a picture: {error.strerror}") from error


def _unreadable(path: Path, error: PictureError) -> DataError:
    return DataError(f"cannot read {path} as a picture: {error}")
