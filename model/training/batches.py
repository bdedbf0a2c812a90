"""Training batches: which crops, what happens to them, and the next one prepared while one is learned from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.augmentation import Augmentation, Changes, change_colours, change_shapes, draw_changes, erase
from model.mgn import Normalise
from model.sampler import Sampler
from model.training.map_cache import TrunkMaps
from model.training.processes import Processes
from model.training.teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch; still on the CPU.

    inputs: `(n, height, width, 3)` uint8 RGB, or, `of_maps`, a frozen trunk's maps `(n, C, H, W)` float16, which are
    mirrored already. labels: `(n,)`; teacher: `(n, E)` or None.
    """

    inputs: Tensor
    of_maps: bool
    labels: Tensor
    changes: Changes
    teacher: Tensor | None


class Batches:
    """Gives batch number `i` from the seed and `i` alone, so that a resumed run sees what it would have seen.

    Every process draws the whole batch and takes its share, so that their number changes nothing. The first
    `map_batches` batches are of the trunk's maps, the others of pictures.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sampler: Sampler,
        augmentation: Augmentation,
        seed: int,
        processes: Processes,
        teacher: Teacher | None,
        maps: TrunkMaps | None = None,
        map_batches: int = 0,
    ) -> None:
        self._inputs = inputs
        self._labels = torch.from_numpy(labels)
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._processes = processes
        self._teacher = teacher
        self._maps = maps
        self._map_batches = map_batches

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
        of_maps = self._maps is not None and number < self._map_batches
        if self._maps is not None and of_maps:
            inputs = self._maps.of(chosen, changes.flipped)
        else:
            inputs = torch.from_numpy(self._inputs[whole[rows]])
        if self._processes.device.type == "cuda":
            inputs = inputs.pin_memory()
        teacher = self._teacher.of(chosen, changes.flipped) if self._teacher else None
        return Batch(inputs, of_maps, self._labels[chosen], changes, teacher)

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
    crops = change_colours(batch.inputs.to(device, non_blocking=True), augmentation, batch.changes)
    images = change_shapes(normalise(crops), augmentation, batch.changes)
    return images.contiguous(memory_format=torch.channels_last)


def to_maps(batch: Batch, augmentation: Augmentation, device: torch.device) -> Tensor:
    """`(n, C, H, W)` float32 maps on the device with boxes erased, channels last."""
    maps = batch.inputs.to(device, non_blocking=True).float()
    return erase(maps, augmentation, batch.changes).contiguous(memory_format=torch.channels_last)
