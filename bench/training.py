"""Training beside the plain loop that most training code is: PIL transforms, contiguous tensors, nothing frozen."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from app.kit.cores import available_cores
from bench.rows import Row
from model.checkpoint import TrainingData
from model.datasets import open_data_set
from model.datasets.base import Sample
from model.datasets.synthetic import write_synthetic
from model.initialisation import initial_backbone
from model.losses import global_triplet_loss, hinge, softmax_loss
from model.mgn import MGN
from model.recipe import Precision, Recipe, read_recipe, recipe_path
from model.sampler import IdentitySampler
from model.train import Run, train
from model.training.journal import LOG_FILE
from model.training.machine import keep_freed_memory
from model.training.processes import Processes

WARM_UP = 2
ITERATIONS = 8
PEOPLE = 40


def rows(rounds: int) -> list[Row]:
    """Crops a second of all loops, in turn, each in a process of its own with as many threads as cores.

    In bfloat16 where the processor has instructions for it; the plain loop computes in float32 beside both.
    """
    precisions: list[Precision] = ["float32"]
    if torch.cpu._is_avx512_bf16_supported():
        precisions.append("bfloat16")
    measured: dict[str, list[float]] = {side: [] for side in ("plain", *precisions)}
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(Path(folder) / "data", PEOPLE)
        for _ in range(rounds):
            for side, speeds in measured.items():
                speeds.append(_measured(side, Path(folder)))
    return [_row(precision, measured[precision], measured["plain"]) for precision in precisions]


def _row(precision: Precision, ours: list[float], plain: list[float]) -> Row:
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    return Row(
        f"training mobile at 192x96, 16 x 4, {precision}",
        f"{statistics.median(ours):.0f} crops/s",
        f"{statistics.median(plain):.0f} crops/s, plain loop",
        f"{ratio:.2f}",
        "1.3 or more",
        ratio >= 1.3,
    )


def _measured(side: str, folder: Path) -> float:
    command = [sys.executable, "-m", "bench.training", side, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(available_cores())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def _recipe(precision: Precision = "float32") -> Recipe:
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


def _ours(folder: Path, precision: Precision) -> float:
    samples = open_data_set(f"synthetic:{folder / 'data'}").train()
    data = TrainingData(name="drawn", terms="free", identities=PEOPLE, crops=len(samples))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        run = Run(_recipe(precision), samples, data, Path(out), cache=folder / "cache", log_every=1, save_every=10**9)
        keep_freed_memory()
        train(run, Processes(0, 1, torch.device("cpu")))
        lines = (Path(out) / LOG_FILE).read_text().splitlines()[WARM_UP:]
    times = [64 / float(line.rsplit(":", 1)[1].rstrip("}")) for line in lines]
    return 64 / statistics.median(times)


class _Crops(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, samples: tuple[Sample, ...], recipe: Recipe) -> None:
        pad = recipe.augmentation.pad
        self._samples = samples
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
            return self._transform(picture.convert("RGB")), sample.pid - 1


def _plain(folder: Path) -> float:
    recipe = _recipe()
    samples = open_data_set(f"synthetic:{folder / 'data'}").train()
    sampler = IdentitySampler(np.array([sample.pid - 1 for sample in samples]), 16, 4, seed=0)
    batches = [sampler.batch(i).tolist() for i in range(WARM_UP + ITERATIONS)]
    loader = DataLoader(_Crops(samples, recipe), batch_sampler=batches, num_workers=available_cores())
    mgn = MGN(initial_backbone(recipe.architecture, recipe.initialisation), recipe.architecture, PEOPLE)
    optimizer = torch.optim.AdamW(mgn.parameters(), lr=recipe.optimizer.learning_rate)
    times, began = [], time.perf_counter()
    for images, labels in loader:
        output = mgn(images)
        loss = softmax_loss(output.logits, labels, recipe.loss.label_smoothing)
        loss = loss + global_triplet_loss(output.parts, labels, hinge(recipe.loss.margin), normalise=True)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    return 64 / statistics.median(times[WARM_UP:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("plain", "float32", "bfloat16"), help="the plain loop, or ours in a precision")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(_plain(arguments.folder) if arguments.side == "plain" else _ours(arguments.folder, arguments.side))
