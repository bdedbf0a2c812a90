"""Runs batches of any size through a network that is prepared for a few fixed sizes."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Step(Protocol):
    """A network prepared for batches of one size.

    inputs: `(size, height, width, 3)` uint8 in host memory, filled before each call.
    """

    @property
    def inputs(self) -> Tensor:
        """The input buffer."""

    def __call__(self) -> Tensor:
        """Embed the content of the buffer: `(size, 8, 256)` float32 in host memory, valid until the next call."""


class FixedBatches:
    """Embeds with the smallest prepared size that holds all crops; more than the largest need several calls."""

    def __init__(self, steps: Mapping[int, Step]) -> None:
        self._steps = dict(sorted(steps.items()))
        self._largest = max(self._steps)

    def __call__(self, crops: Tensor) -> Tensor:
        """`(N, height, width, 3)` uint8 -> `(N, 8, 256)` float32."""
        starts = range(0, len(crops), self._largest)
        return torch.cat([self._embed(crops[start : start + self._largest]) for start in starts])

    def _embed(self, crops: Tensor) -> Tensor:
        count = len(crops)
        step = next(step for size, step in self._steps.items() if size >= count)
        step.inputs[:count] = crops  # further rows hold old crops, whose outputs are ignored
        return step()[:count].clone()
