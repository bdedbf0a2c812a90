"""Training batches: which crops, what happens to them, and the next one prepared while one is learned from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.augmentation import Augmentation, Changes, change_colours, change_shapes, draw_changes
from model.mgn import Normalise
from model.sampler import IdentitySampler
from model.training.processes import Processes
from model.training.teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch; still on the CPU.

    crops: `(n, height, width, 3)` uint8 RGB; labels: `(n,)`; teacher: `(n, E)` or None.
    """

    crops: Tensor
    labels: Tensor
    changes: Changes
    teacher: Tensor | None


class Batches:
    """Gives batch number `i` from the seed and `i` alone, so that a resumed run sees what it would have seen.

    Every process draws the whole batch and takes its share, so that their number changes nothing.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sampler: IdentitySampler,
        augmentation: Augmentation,
        seed: int,
        processes: Processes,
        teacher: Teacher | None,
    ) -> None:
        self._inputs = inputs
        self._labels = torch.from_numpy(labels)
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._processes = processes
        self._teacher = teacher

    def crops_of(self, number: int) -> list[int]:
        """Which crops the whole batch number `number` is made of."""
        crops: list[int] = self._sampler.batch(number).tolist()
        return crops

    def batch(self, number: int) -> Batch:
        """Batch number `number`, from 0."""
        whole = self._sampler.batch(number)
        rows = self._processes.share(len(whole))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        changes = draw_changes(len(whole), self._augmentation, generator).part(rows)
        chosen = torch.from_numpy(whole[rows])
        crops = torch.from_numpy(self._inputs[whole[rows]])
        if self._processes.device.type == "cuda":
            crops = crops.pin_memory()
        teacher = self._teacher.of(chosen, changes.flipped) if self._teacher else None
        return Batch(crops, self._labels[chosen], changes, teacher)

    def stream(self, first: int, end: int) -> Iterator[Batch]:
        """Batches `first` to `end` - 1; the next one is prepared while the caller uses one."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self.batch, first)
            for number in range(first, end):
                batch = upcoming.result()
                if number + 1 < end:
                    upcoming = pool.submit(self.batch, number + 1)
                yield batch


def to_images(batch: Batch, augmentation: Augmentation, normalise: Normalise, device: torch.device) -> Tensor:
    """`(n, 3, height, width)` normalised and augmented pictures on the device, channels last."""
    crops = change_colours(batch.crops.to(device, non_blocking=True), augmentation, batch.changes)
    images = change_shapes(normalise(crops), augmentation, batch.changes)
    return images.contiguous(memory_format=torch.channels_last)
