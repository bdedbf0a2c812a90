"""Thumbnails of crops for an HTML page, plain or with an activation map."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from model.pictures import read_picture

_JPEG_QUALITY = 85
_OVERLAY_OPACITY = 0.55


def read_thumbnail(path: Path, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB, shrunk to fit into `size` (width, height in pixels) at its aspect ratio. Raises DataError."""
    thumbnail = read_picture(path)
    thumbnail.thumbnail(size, Image.Resampling.LANCZOS)
    return thumbnail


def jpeg_uri(picture: Image.Image) -> str:
    """A picture as a `data:` URI of a JPEG."""
    content = BytesIO()
    picture.save(content, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def overlaid(picture: Image.Image, activation: NDArray[np.float32]) -> Image.Image:
    """The picture in grey with a map `(h, w)` over it, from blue (minimum) to red (maximum)."""
    low, high = float(activation.min()), float(activation.max())
    scaled = (activation - low) / max(high - low, 1e-12)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    colours = colormaps["turbo"](np.clip(np.asarray(smooth), 0, 1))[..., :3] * 255
    grey = np.asarray(picture.convert("L"), np.float64)[..., None]
    return Image.fromarray((_OVERLAY_OPACITY * colours + (1 - _OVERLAY_OPACITY) * grey).astype(np.uint8))
