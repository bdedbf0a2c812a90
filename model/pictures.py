"""Reading crops in parallel as the network's input."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.checkpoint import InputFormat
from model.errors import DataError
from model.transforms import to_input


def read_inputs(paths: Sequence[Path], input_format: InputFormat) -> NDArray[np.uint8]:
    """Read and resize crops: `(N, height, width, 3)` uint8 RGB. Raises DataError with the path."""
    inputs = np.empty((len(paths), *input_format.size, 3), dtype=np.uint8)

    def read(position: int) -> None:
        try:
            with Image.open(paths[position]) as picture:
                inputs[position] = to_input(picture, input_format.size, input_format.interpolation)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"cannot read {paths[position]} as a picture: {error}") from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(paths))))
    return inputs
