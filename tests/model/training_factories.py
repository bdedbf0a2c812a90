"""Factories for tests of training: recipes and runs that take seconds, in this process or in others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from model.architecture import OMZ_INPUT
from model.checkpoint import TrainingData
from model.conversion.networks import convert_network
from model.datasets import open_data_set
from model.plain_network import load_network, save_network
from model.recipe import Recipe, read_recipe, recipe_path
from model.train import Run
from model.training.world import World
from tests.model.ir_factories import TINY, random_network, write_ir
from tests.model.model_factories import write_market

ALONE = World(0, 1, torch.device("cpu"))

QUICK: dict[str, object] = {
    "initialisation.weights": "random",
    "initialisation.frozen_trunk_blocks": 2,
    "input.height": 64,
    "input.width": 32,
    "batch.identities": 4,
    "batch.crops": 2,
    "schedule.iterations": 4,
    "schedule.warm_up": 1,
    "small_start.height": 64,
    "small_start.width": 32,
    "small_start.share": 0.0,
}


def quick_recipe(changes: dict[str, object] | None = None, name: str = "mobile") -> Recipe:
    """A shipped recipe, shrunk to run for seconds."""
    return read_recipe(recipe_path(Path(name)), QUICK | (changes or {}))


def market(folder: Path) -> Path:
    """A miniature of Market-1501 in `folder`, written once."""
    if not (folder / "market").exists():
        write_market(folder / "market")
    return folder / "market"


def run_of(folder: Path, recipe: Recipe, out: str = "run", **rest: Any) -> Run:
    """A run on a miniature of Market-1501."""
    samples = open_data_set(f"market1501:{market(folder)}").train()
    data = TrainingData(name="miniature", terms="ours", identities=6, crops=len(samples))
    return Run(recipe, samples, data, folder / out, cache=folder / "cache", **rest)


def write_teacher(folder: Path) -> Path:
    """Write a teacher's file for the miniature's training crops; the features are mean colours."""
    paths = sorted((market(folder) / "bounding_box_train").glob("*.jpg"))
    features = np.stack([np.asarray(Image.open(path)).mean(axis=(0, 1)) - 128 for path in paths])
    path = folder / "teacher.npz"
    np.savez(
        path, names=np.array([path.name for path in paths]), features=features, features_mirrored=features * 0.9 + 1
    )
    return path


def command(
    folder: Path, out: str, changes: dict[str, object], *options: str, processes: int = 1, recipe: str = "mobile"
) -> list[str]:
    """The command line of a quick run on the miniature."""
    start = [sys.executable, "-m", "model"]
    if processes > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start += ["-m", "model"]
    line = [*start, "train", recipe, "--data", f"market1501:{market(folder)}", "--out", str(folder / out)]
    line += ["--cache", str(folder / "cache"), "--log-every", "1", *options]
    quick = {} if recipe == "osnet" else QUICK  # whose input and architecture are its own, see `omz_changes`
    for name, value in (quick | changes).items():
        line += ["--set", f"{name}={json.dumps(value)}"]
    return line


def environment() -> dict[str, str]:
    """The environment of runs in other processes: one thread each, so that results are reproducible."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run_command(*line_of: Any, **rest: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line of `command` to its end."""
    return subprocess.run(
        command(*line_of, **rest), env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def omz_changes(folder: Path) -> dict[str, object]:
    """The changes with which a quick run of the recipe `osnet` starts from a tiny converted network."""
    path = folder / "tiny.safetensors"
    if not path.exists():
        converted = convert_network(write_ir(folder / "tiny.xml", random_network()), "tiny")
        save_network(path, converted.weights, converted.metadata)
    mean, std = load_network(path).metadata.input.mean, load_network(path).metadata.input.std
    return {
        "architecture.omz_channels": list(TINY),
        "input.height": OMZ_INPUT[0],
        "input.width": OMZ_INPUT[1],
        "input.mean": list(mean),
        "input.std": list(std),
        "initialisation.weights": f"file:{path}",
        "initialisation.frozen_trunk_blocks": 0,
        "initialisation.frozen_trunk_iterations": 3,
        "batch.identities": 4,
        "batch.crops": 2,
        "batch.sources": [4],
        "schedule.iterations": 6,
        "schedule.warm_up": 1,
    }


def omz_recipe(folder: Path, changes: dict[str, object] | None = None) -> Recipe:
    """The recipe `osnet`, shrunk to run for seconds, from a tiny converted network."""
    return read_recipe(recipe_path(Path("osnet")), omz_changes(folder) | (changes or {}))
