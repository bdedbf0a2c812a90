"""Embeds pictures of people in this process."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import model.decoding
import model.errors
from app.engine_kinds import install_hint
from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS
from model.checkpoint import BUNDLED, CheckpointMetadata
from model.decoding import PictureLimits, decode, decode_opened
from model.loading import Inference, load_for_inference
from passerby.errors import CheckpointError, PictureError
from passerby.pictures import Picture, Pictures, each, name_of, opened

BATCH_SIZE = 32
"""Pictures that are decoded and embedded at once."""


class Embeddings(np.ndarray[tuple[int, ...], np.dtype[np.float32]]):
    """An array `(N, 2048)` float32 of embeddings, each of norm 1: their dot products are similarities.

    It keeps its type when it is sliced; what is computed from it is a plain array.
    """

    @property
    def parts(self) -> NDArray[np.float32]:
        """The eight parts of each embedding, `(N, 8, 256)`, in the order of `passerby.PARTS`; a view.

        A part's norm is the weight that the model gives it.
        """
        plain = self.view(np.ndarray)
        return plain.reshape(*plain.shape[:-1], len(PARTS), PART_DIM)

    def __array_wrap__(self, array: NDArray[Any], context: Any = None, return_scalar: bool = False) -> Any:
        """See numpy: the results of computations are plain arrays, and scalars."""
        return array[()] if return_scalar else np.asarray(array)


class Model:
    """A checkpoint that embeds pictures. metadata: all that the checkpoint says of itself.

    Several threads may use one model at once.
    """

    def __init__(self, inference: Inference) -> None:
        self.metadata: CheckpointMetadata = inference.metadata
        self._embed = inference.embed
        self._limits = PictureLimits()

    @property
    def model_id(self) -> str:
        """The id of the model, as services give it: embeddings of two models cannot be compared."""
        return self.metadata.model_id

    def __call__(self, pictures: Pictures) -> Embeddings:
        """The embeddings of pictures of one person each, `(N, 2048)` float32, in order; of one picture `(1, 2048)`.

        A picture is decoded as the service decodes it: upright by its EXIF orientation, transparent pixels in the
        model's mean colour, 16 bits as 8. Pictures are read in batches, so an iterable may be longer than memory.
        Raises PictureError for the first picture that cannot be used.
        """
        pixels = self._decoded(pictures)
        batches = [np.empty((0, len(PARTS), PART_DIM), dtype=np.float32)]
        while batch := list(islice(pixels, BATCH_SIZE)):
            batches.append(self._embed(np.stack(batch)))
        return np.concatenate(batches).reshape(-1, EMBEDDING_DIM).view(Embeddings)

    def _decoded(self, pictures: Pictures) -> Iterator[NDArray[np.uint8]]:
        for position, picture in enumerate(each(pictures)):
            yield self._pixels(picture, position)

    def _pixels(self, picture: Picture, position: int) -> NDArray[np.uint8]:
        content = opened(picture, position)
        try:
            if isinstance(content, bytes):
                return decode(content, self._limits, self.metadata.input).pixels
            return decode_opened(content, self._limits, self.metadata.input)
        except model.decoding.PictureError as error:
            raise PictureError(str(error), position, error.kind, name_of(picture)) from error


def load_model(checkpoint: str | Path | None = None) -> Model:
    """Load a checkpoint, by default the bundled one: `.onnx` runs with ONNX Runtime, `.safetensors` with torch.

    torch computes on the GPU if it finds one. Raises CheckpointError.
    """
    path = _bundled() if checkpoint is None else Path(checkpoint)
    try:
        return Model(load_for_inference(path))
    except model.errors.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    except ImportError as error:
        hint = install_hint("onnx" if path.suffix == ".onnx" else "torch")
        raise CheckpointError(f"{path} cannot be run: {hint} ({error})") from error


def _bundled() -> Path:
    return BUNDLED if find_spec("onnxruntime") else BUNDLED.with_suffix(".safetensors")
