"""Pictures to post: any number of distinct JPEG files of drawn people."""

from io import BytesIO
from itertools import count

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from model.checkpoint import InputFormat
from model.datasets.synthetic import DRAWN_PEOPLE, Synthetic
from model.transforms import to_input

DRAWN = 128
_START_OF_IMAGE = b"\xff\xd8"
_COMMENT = b"\xff\xfe"


class Pictures:
    """JPEG files with distinct bytes: drawn people, repeated with different comments."""

    def __init__(self, drawn: int = DRAWN) -> None:
        self.drawn = [sample.path.read_bytes() for sample in Synthetic(DRAWN_PEOPLE).train()[:drawn]]
        self._numbers = count()

    def take(self, number_of_files: int) -> list[bytes]:
        """New files. Thread-safe."""
        numbers = [next(self._numbers) for _ in range(number_of_files)]
        return [with_comment(self.drawn[number % len(self.drawn)], f"{number:012}") for number in numbers]


def as_inputs(contents: list[bytes], input_format: InputFormat) -> NDArray[np.uint8]:
    """Files as inputs of the network: `(N, height, width, 3)` uint8 RGB. Without any checks."""
    inputs = []
    for content in contents:
        with PIL.Image.open(BytesIO(content)) as picture:
            inputs.append(to_input(picture, input_format.size, input_format.interpolation))
    return np.stack(inputs)


def with_comment(jpeg: bytes, text: str) -> bytes:
    """A JPEG file with the same pixels, but with a comment in ASCII."""
    comment = _COMMENT + (len(text) + 2).to_bytes(2) + text.encode()
    return _START_OF_IMAGE + comment + jpeg[len(_START_OF_IMAGE) :]
