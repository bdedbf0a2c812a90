"""Training batches: their crops, their augmentation, and prefetching of the next batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.augmentation import Augmentation, AugmentationParams, augment_colours, augment_geometry, erase, sample_params
from model.mgn import Normalise
from model.sampler import Sampler
from model.training.map_cache import TrunkMaps
from model.training.teacher import Teacher
from model.training.world import World


@dataclass(frozen=True)
class Batch:
    """One process's rows of a batch, on the CPU.

    inputs: pictures `(n, height, width, 3)` uint8 RGB; if `is_maps`, a frozen trunk's maps `(n, C, H, W)` float16,
    already mirrored. labels: `(n,)`. teacher: its features `(n, E)`, or None.
    """

    inputs: Tensor
    is_maps: bool
    labels: Tensor
    params: AugmentationParams
    teacher: Tensor | None


class Batches:
    """Batch number `i` depends on the seed and on `i` alone, so a resumed run sees the same batches.

    Every process samples the whole batch and takes its rows, so results do not depend on the number of processes. The
    first `map_batches` batches hold maps of the trunk, the others pictures.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sampler: Sampler,
        augmentation: Augmentation,
        seed: int,
        world: World,
        teacher: Teacher | None,
        maps: TrunkMaps | None = None,
        map_batches: int = 0,
    ) -> None:
        self._inputs = inputs
        self._labels = torch.from_numpy(labels)
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._world = world
        self._teacher = teacher
        self._maps = maps
        self._map_batches = map_batches

    def crop_indices(self, number: int) -> list[int]:
        """The indices of the crops in batch `number`, of all processes."""
        crops: list[int] = self._sampler.batch(number).tolist()
        return crops

    def batch(self, number: int) -> Batch:
        """Batch number `number`, from 0."""
        whole = self._sampler.batch(number)
        rows = self._world.rows(len(whole))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        params = sample_params(len(whole), self._augmentation, generator).select(rows)
        crops = torch.from_numpy(whole[rows])
        is_maps = self._maps is not None and number < self._map_batches
        if self._maps is not None and is_maps:
            inputs = self._maps.select(crops, params.flipped)
        else:
            inputs = torch.from_numpy(self._inputs[whole[rows]])
        if self._world.device.type == "cuda":
            inputs = inputs.pin_memory()
        teacher = self._teacher.select(crops, params.flipped) if self._teacher else None
        return Batch(inputs, is_maps, self._labels[crops], params, teacher)

    def stream(self, first: int, end: int) -> Iterator[Batch]:
        """Batches `first` to `end` - 1; a thread prepares the next batch while the caller uses the current one."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self.batch, first)
            for number in range(first, end):
                batch = upcoming.result()
                if number + 1 < end:
                    upcoming = pool.submit(self.batch, number + 1)
                yield batch


def to_images(batch: Batch, augmentation: Augmentation, normalise: Normalise, device: torch.device) -> Tensor:
    """`(n, 3, height, width)` normalised and augmented pictures on the device, channels last."""
    crops = augment_colours(batch.inputs.to(device, non_blocking=True), augmentation, batch.params)
    images = augment_geometry(normalise(crops), augmentation, batch.params)
    return images.contiguous(memory_format=torch.channels_last)


def to_maps(batch: Batch, augmentation: Augmentation, device: torch.device) -> Tensor:
    """`(n, C, H, W)` float32 maps on the device with boxes erased, channels last."""
    maps = batch.inputs.to(device, non_blocking=True).float()
    return erase(maps, augmentation, batch.params).contiguous(memory_format=torch.channels_last)
