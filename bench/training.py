"""Training against a plain training loop: PIL transforms, contiguous tensors, nothing frozen."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from app.kit.cores import available_cores
from bench.rounds import median_ratio
from bench.rows import Row
from model.checkpoint import TrainingData
from model.datasets.base import Sample
from model.datasets.synthetic import DRAWN_PEOPLE, Synthetic
from model.initialisation import initial_backbone
from model.losses import global_triplet_loss, hinge, softmax_loss
from model.mgn import MGN
from model.recipe import Precision, Recipe, read_recipe, recipe_path
from model.report import read_log
from model.sampler import IdentitySampler
from model.train import Run, train
from model.training.machine import keep_freed_memory
from model.training.run_log import LOG_FILE
from model.training.world import World

WARM_UP = 2
ITERATIONS = 8


def rows(rounds: int) -> list[Row]:
    """A line for each precision: crops a second of both loops in alternating rounds, each in a separate process.

    bfloat16 only if the CPU has instructions for it; the plain loop always computes in float32.
    """
    precisions: list[Precision] = ["float32"]
    if torch.cpu._is_avx512_bf16_supported():
        precisions.append("bfloat16")
    speeds: dict[str, list[float]] = {side: [] for side in ("plain", *precisions)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for side, of_rounds in speeds.items():
                of_rounds.append(_speed(side, Path(folder)))
    return [_row(precision, speeds[precision], speeds["plain"]) for precision in precisions]


def _row(precision: Precision, ours: list[float], plain: list[float]) -> Row:
    ratio = median_ratio(ours, plain)
    return Row(
        f"training mobile at 192x96, 16 x 4, {precision}",
        f"{statistics.median(ours):.0f} crops/s",
        f"{statistics.median(plain):.0f} crops/s, plain loop",
        f"{ratio:.2f}",
        "1.3 or more",
        ratio >= 1.3,
    )


def _speed(side: str, folder: Path) -> float:
    command = [sys.executable, "-m", "bench.training", side, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(available_cores())}
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return float(process.stdout.split()[-1])


@dataclass(frozen=True)
class Loop:
    """The training of a recipe on the shipped drawn people, with its files in `folder`.

    The first `warm_up` iterations do not count; the others are timed in groups of `warm_up`.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    warm_up: int

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The drawn people's crops."""
        return Synthetic(DRAWN_PEOPLE).train()

    @property
    def crops(self) -> int:
        """The number of crops in an iteration."""
        return self.recipe.batch.identities * self.recipe.batch.crops


def _mobile(precision: Precision) -> Recipe:
    changes: dict[str, object] = {
        "precision": precision,
        "schedule.iterations": WARM_UP + ITERATIONS,
        "schedule.warm_up": 1,
        "initialisation.weights": "random",
        "small_start": None,
        "input.height": 192,
        "input.width": 96,
    }
    return read_recipe(recipe_path(Path("mobile")), changes)


def passerby_loop(loop: Loop, compiled: bool = False) -> float:
    """Crops a second of Passerby's training."""
    samples = loop.samples
    identities = len({sample.pid for sample in samples})
    data = TrainingData(name="drawn", terms="free", identities=identities, crops=len(samples))
    with tempfile.TemporaryDirectory(dir=loop.folder) as out:
        cache = loop.folder / "cache"
        run = Run(
            recipe=loop.recipe,
            samples=samples,
            data=data,
            folder=Path(out),
            cache=cache,
            compiled=compiled,
            log_every=loop.warm_up,
            save_every=10**9,
        )
        keep_freed_memory()
        train(run, World(0, 1, loop.device))
        log = read_log(Path(out) / LOG_FILE)
    return statistics.median(float(line["crops_per_second"]) for line in log[1:])


class _Crops(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, samples: tuple[Sample, ...], labels: NDArray[np.int64], recipe: Recipe) -> None:
        pad = recipe.augmentation.pad
        self._samples = samples
        self._labels = labels
        self._transform = v2.Compose(
            [
                v2.Resize(recipe.input.size),
                v2.RandomHorizontalFlip(recipe.augmentation.flip),
                v2.Pad(pad),
                v2.RandomCrop(recipe.input.size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(recipe.input.mean, recipe.input.std),
                v2.RandomErasing(recipe.augmentation.erase),
            ]
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self._samples[index]
        with Image.open(sample.path) as picture:
            return self._transform(picture.convert("RGB")), int(self._labels[index])


def plain_loop(loop: Loop) -> float:
    """Crops a second of a plain loop."""
    recipe, samples = loop.recipe, loop.samples
    labels = np.unique([sample.pid for sample in samples], return_inverse=True)[1]
    sampler = IdentitySampler(labels, recipe.batch.identities, recipe.batch.crops, seed=0)
    batches = [sampler.batch(i).tolist() for i in range(recipe.schedule.iterations)]
    loader = DataLoader(_Crops(samples, labels, recipe), batch_sampler=batches, num_workers=available_cores())
    mgn = MGN(initial_backbone(recipe.architecture, recipe.initialisation), recipe.architecture, int(labels.max()) + 1)
    mgn.to(loop.device)
    optimizer = torch.optim.AdamW(mgn.parameters(), lr=1e-4)
    times, began = [], time.perf_counter()
    for number, (images, targets) in enumerate(loader, start=1):
        on_device = targets.to(loop.device)
        output = mgn(images.to(loop.device))
        loss = softmax_loss(output.logits, on_device, recipe.loss.label_smoothing)
        loss = loss + global_triplet_loss(output.parts, on_device, hinge(recipe.loss.margin), normalise=True)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if number % loop.warm_up == 0:
            loss.item()  # waits for the GPU
            times.append(time.perf_counter() - began)
            began = time.perf_counter()
    return loop.warm_up * loop.crops / statistics.median(times[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("plain", "float32", "bfloat16"), help="the plain loop, or ours in a precision")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    side: Precision = "float32" if arguments.side == "plain" else arguments.side
    loop = Loop(_mobile(side), arguments.folder, torch.device("cpu"), WARM_UP)
    print(plain_loop(loop) if arguments.side == "plain" else passerby_loop(loop))
