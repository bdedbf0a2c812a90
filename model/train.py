"""Training an MGN by a recipe: one loop, resumable at any iteration."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from model.augmentation import augment
from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, save_checkpoint
from model.datasets.base import Sample
from model.errors import TrainingError
from model.initialisation import initial_backbone
from model.losses import global_triplet_loss, softmax_loss
from model.mgn import MGN, Normalise
from model.pictures import read_inputs
from model.recipe import Recipe, Schedule
from model.sampler import IdentitySampler

STATE_FILE = "state.pt"
CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_FILE = "log.jsonl"

ITERATIONS_BETWEEN_STATES = 100
ITERATIONS_BETWEEN_LOG_LINES = 20


@dataclass(frozen=True)
class Run:
    """What is trained on what, and where it is written."""

    recipe: Recipe
    samples: tuple[Sample, ...]
    data: TrainingData
    folder: Path


@dataclass
class _Progress:
    """Everything that changes while a run goes on; saved and loaded as one."""

    mgn: MGN
    optimizer: torch.optim.Optimizer
    iteration: int = 0


def train(run: Run, resume: bool = False) -> Checkpoint:
    """Train to the end of the recipe and write the checkpoint into the run's folder.

    With `resume` the run goes on from its last saved state. Every batch and every augmentation follows from the seed
    and the iteration's number, so what a resumed run sees is what it would have seen. Raises TrainingError if the
    folder holds another run, there is nothing to resume, or the loss is no finite number.
    """
    recipe = run.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    pids = sorted({sample.pid for sample in run.samples})
    labels = np.searchsorted(pids, [sample.pid for sample in run.samples]).astype(np.int64)
    progress = _start(recipe, len(pids), device)
    if resume:
        _load_state(run, progress)
    elif (run.folder / STATE_FILE).exists():
        raise TrainingError(f"{run.folder} already holds a run: go on with --resume or choose another --out")
    run.folder.mkdir(parents=True, exist_ok=True)

    inputs = torch.from_numpy(read_inputs([sample.path for sample in run.samples], recipe.input))
    sampler = _sampler(labels, recipe)
    normalise = Normalise(recipe.input)
    with _progress_bar(recipe.schedule.iterations, progress.iteration) as show:
        while progress.iteration < recipe.schedule.iterations:
            began = time.perf_counter()
            chosen = torch.from_numpy(sampler.batch(progress.iteration))
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + progress.iteration)
            images = augment(normalise(inputs[chosen]), recipe.augmentation, generator)
            losses = _step(progress, images.to(device), torch.from_numpy(labels)[chosen].to(device), recipe)
            progress.iteration += 1
            if progress.iteration % ITERATIONS_BETWEEN_LOG_LINES == 0:
                line = {"iteration": progress.iteration} | losses
                line["crops_per_second"] = round(len(chosen) / (time.perf_counter() - began), 1)
                _log(run.folder, line)
            if progress.iteration % ITERATIONS_BETWEEN_STATES == 0:
                _save_state(run, progress)
            show(losses)
    _save_state(run, progress)
    return save_checkpoint(run.folder / CHECKPOINT_FILE, _inference_weights(progress.mgn), _metadata(run))


def _start(recipe: Recipe, classes: int, device: torch.device) -> _Progress:
    backbone = initial_backbone(recipe.architecture.backbone, recipe.initialisation)
    mgn = MGN(backbone, recipe.architecture, classes).to(memory_format=torch.channels_last).to(device)
    for parameter in _frozen(mgn, recipe).parameters():
        parameter.requires_grad_(False)
    return _Progress(mgn, _optimizer(mgn, recipe))


def _frozen(mgn: MGN, recipe: Recipe) -> nn.Module:
    return mgn.trunk[: recipe.initialisation.frozen_trunk_blocks]


def _optimizer(mgn: MGN, recipe: Recipe) -> torch.optim.Optimizer:
    how = recipe.optimizer
    pretrained = [*mgn.trunk.parameters(), *mgn.branches.parameters()]
    known = {id(parameter) for parameter in pretrained}
    fresh = [parameter for parameter in mgn.parameters() if id(parameter) not in known]
    groups = [
        {"params": [p for p in pretrained if p.requires_grad], "peak": how.learning_rate},
        {"params": fresh, "peak": how.head_learning_rate},
    ]
    if how.kind == "adamw":
        return torch.optim.AdamW(groups, lr=how.learning_rate, weight_decay=how.weight_decay)
    return torch.optim.SGD(groups, lr=how.learning_rate, momentum=how.momentum, weight_decay=how.weight_decay)


def _sampler(labels: np.ndarray[Any, np.dtype[np.int64]], recipe: Recipe) -> IdentitySampler:
    try:
        return IdentitySampler(labels, recipe.batch.identities, recipe.batch.crops, recipe.seed)
    except ValueError as error:
        raise TrainingError(str(error)) from error


def _step(progress: _Progress, images: Tensor, labels: Tensor, recipe: Recipe) -> dict[str, float]:
    """One iteration: forward, both losses, backward, update."""
    mgn, loss = progress.mgn.train(), recipe.loss
    _frozen(mgn, recipe).eval()
    for group in progress.optimizer.param_groups:
        group["lr"] = group["peak"] * rate(progress.iteration, recipe.schedule)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        output = mgn(images)
    softmax = softmax_loss([part.float() for part in output.logits], labels, loss.label_smoothing)
    triplet = global_triplet_loss(output.parts.float(), labels, loss.margin, loss.normalise_triplet)
    total = softmax + triplet
    if not torch.isfinite(total):
        raise TrainingError(
            f"the loss is no finite number at iteration {progress.iteration}: softmax {softmax:.3g}, "
            f"triplet {triplet:.3g}; lower the learning rate, then start again or --resume"
        )
    progress.optimizer.zero_grad()
    torch.autograd.backward(total)
    progress.optimizer.step()
    return {"softmax": round(softmax.item(), 4), "triplet": round(triplet.item(), 4)}


def rate(iteration: int, schedule: Schedule) -> float:
    """The share of its peak that the learning rate has: up linearly from 1 %, then down as half a cosine."""
    if iteration < schedule.warm_up:
        return 0.01 + 0.99 * iteration / schedule.warm_up
    fallen = (iteration - schedule.warm_up) / (schedule.iterations - schedule.warm_up)
    return (1 + math.cos(math.pi * fallen)) / 2


def _inference_weights(mgn: MGN) -> dict[str, np.ndarray[Any, Any]]:
    """Without classifiers and counters; what an embedding needs."""
    return {
        name: tensor.detach().cpu().contiguous().numpy()
        for name, tensor in mgn.state_dict().items()
        if not name.startswith("classifiers.") and not name.endswith("num_batches_tracked")
    }


def _metadata(run: Run) -> CheckpointMetadata:
    return CheckpointMetadata(
        name=run.recipe.name,
        architecture=run.recipe.architecture,
        input=run.recipe.input,
        training_data=run.data,
        recipe=run.recipe.model_dump(mode="json"),
    )


def _fingerprint(run: Run) -> dict[str, Any]:
    return {"recipe": run.recipe.model_dump(mode="json"), "data": run.data.model_dump(mode="json")}


def _save_state(run: Run, progress: _Progress) -> None:
    state = {
        "run": _fingerprint(run),
        "iteration": progress.iteration,
        "mgn": progress.mgn.state_dict(),
        "optimizer": progress.optimizer.state_dict(),
    }
    temporary = run.folder / f"{STATE_FILE}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run.folder / STATE_FILE)


def _load_state(run: Run, progress: _Progress) -> None:
    path = run.folder / STATE_FILE
    if not path.exists():
        raise TrainingError(f"there is nothing to resume in {run.folder}: start without --resume")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["run"] != _fingerprint(run):
        raise TrainingError(f"{path} belongs to another recipe or other data: choose another --out")
    progress.mgn.load_state_dict(state["mgn"])
    progress.optimizer.load_state_dict(state["optimizer"])
    progress.iteration = state["iteration"]


def _log(folder: Path, line: dict[str, float]) -> None:
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@contextmanager
def _progress_bar(total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("softmax {task.fields[softmax]:.3f} triplet {task.fields[triplet]:.3f}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("", total=total, completed=done, softmax=math.nan, triplet=math.nan)

        def show(losses: dict[str, float]) -> None:
            bar.update(task, advance=1, softmax=losses["softmax"], triplet=losses["triplet"])

        yield show
