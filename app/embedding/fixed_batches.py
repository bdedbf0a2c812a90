"""Batches of any size through a network that was made ready for a few sizes alone."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Step(Protocol):
    """A network made ready for batches of one size.

    inputs: `(size, height, width, 3)` uint8 in the host's memory, to be filled before each call.
    """

    @property
    def inputs(self) -> Tensor:
        """The buffer."""

    def __call__(self) -> Tensor:
        """Embed what is in the buffer: `(size, 8, 256)` float32 in the host's memory, until the next call."""


class FixedBatches:
    """Embeds in the smallest ready size that holds all crops; more than the largest go in several calls."""

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
        step.inputs[:count] = crops  # the rows behind hold older crops, which change nothing
        return step()[:count].clone()
