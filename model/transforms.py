"""From a decoded picture to the network's input, for training, evaluation and all engines; needs no torch."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_input(picture: Image.Image, size: tuple[int, int], interpolation: Interpolation) -> NDArray[np.uint8]:
    """Resize a picture to `size` (height, width in pixels): `(height, width, 3)` uint8 RGB.

    The aspect ratio is not kept: MGN's stripes are fractions of the crop's height. Pillow's resize is antialiased.
    """
    height, width = size
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), _RESAMPLING[interpolation])
    return np.asarray(rgb, dtype=np.uint8)
