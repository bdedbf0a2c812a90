"""Reference embeddings: a checkpoint's embeddings of fixed crops, by which an engine checks its own results."""

import base64
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.architecture import PART_DIM, PARTS
from model.frozen import FrozenModel

Crops = NDArray[np.uint8]
Parts = NDArray[np.float32]

CROPS = 4
"""The number of reference crops."""

MIN_COSINE = 0.999
"""The lowest allowed cosine between an engine's and the reference embeddings."""

_PATCH_SIZE = 16
"""Pixels. Patches activate a network like photographs do; noise does not."""


class Reference(FrozenModel):
    """The embeddings of `reference_crops`; `parts` is base64 of float16 `(CROPS, 8, 256)`."""

    parts: str

    @classmethod
    def of(cls, embed: Callable[[Crops], Parts], size: tuple[int, int]) -> "Reference":
        """Embed the reference crops.

        embed: `(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32. size: the crops' (height, width) in pixels.
        """
        halves = embed(reference_crops(size)).astype("<f2")
        return cls(parts=base64.b64encode(halves.tobytes()).decode())

    def lowest_cosine(self, embed: Callable[[Crops], Parts], size: tuple[int, int]) -> float:
        """The lowest cosine between `embed`'s embeddings of the reference crops and the stored ones.

        NaN if an embedding is not finite. The arguments are those of `of`.
        """
        return self._lowest_cosine(embed(reference_crops(size)).reshape(CROPS, -1).astype(np.float64))

    def is_of_same_model(self, other: "Reference") -> bool:
        """Whether two checkpoints give the same embeddings, as two forms of one model do."""
        return self._lowest_cosine(other._embeddings()) >= MIN_COSINE

    def _lowest_cosine(self, embedded: NDArray[np.float64]) -> float:
        stored = self._embeddings()
        lengths = np.linalg.norm(embedded, axis=1) * np.linalg.norm(stored, axis=1)
        return float(((embedded * stored).sum(axis=1) / lengths).min())

    def _embeddings(self) -> NDArray[np.float64]:
        stored = np.frombuffer(base64.b64decode(self.parts), "<f2").reshape(CROPS, len(PARTS) * PART_DIM)
        return stored.astype(np.float64)


def reference_crops(size: tuple[int, int]) -> Crops:
    """`(CROPS, height, width, 3)` uint8 of coloured patches; they never change."""
    return patches(CROPS, size, seed=0)


def patches(count: int, size: tuple[int, int], seed: int) -> Crops:
    """`(count, height, width, 3)` uint8 of coloured patches.

    Uses RandomState, whose numbers NumPy guarantees not to change.
    """
    height, width = size
    rows, columns = -(-height // _PATCH_SIZE), -(-width // _PATCH_SIZE)
    colours = np.random.RandomState(seed).randint(0, 256, (count, rows, columns, 3)).astype(np.uint8)
    return colours.repeat(_PATCH_SIZE, axis=1).repeat(_PATCH_SIZE, axis=2)[:, :height, :width]
