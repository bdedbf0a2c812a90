"""Reading pictures, one or many in parallel as the network's input."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint import InputFormat
from model.errors import DataError
from model.transforms import to_input


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB. Raises DataError with the path."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise DataError(f"cannot read {path} as a picture: {error}") from error


def read_inputs(paths: Sequence[Path], input_format: InputFormat) -> NDArray[np.uint8]:
    """Read and resize crops: `(N, height, width, 3)` uint8 RGB. Raises DataError with the path."""
    inputs = np.empty((len(paths), *input_format.size, 3), dtype=np.uint8)

    def read(position: int) -> None:
        inputs[position] = to_input(read_picture(paths[position]), input_format.size, input_format.interpolation)

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(paths))))
    return inputs
