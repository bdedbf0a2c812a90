"""Training an MGN by a recipe: one loop, stoppable and resumable at any iteration, on one process or several."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, save_checkpoint
from model.datasets.base import Sample
from model.errors import RecipeError, RunStopped, TrainingError
from model.initialisation import initial_backbone
from model.losses import (
    circle_loss,
    global_triplet_loss,
    hinge,
    similarity_distillation_loss,
    soft_margin,
    softmax_loss,
)
from model.mgn import MGN, MGNOutput, Normalise, unit_parts
from model.recipe import Loss, Recipe
from model.sampler import IdentitySampler
from model.training.batches import Batch, Batches, to_images
from model.training.inputs import cached_inputs, default_cache
from model.training.journal import Journal, opened_journal
from model.training.processes import Processes
from model.training.schedule import rate
from model.training.states import load_newest_state, save_state, saved_states
from model.training.stopping import StopRequest, stop_requests
from model.training.teacher import read_teacher

CHECKPOINT_FILE = "checkpoint.safetensors"
BAD_BATCH_FILE = "non-finite-batch.txt"

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Judge = Callable[[Checkpoint], Mapping[str, float]]
"""Measures the network of a run that goes on; gives figures by name."""


@dataclass(frozen=True)
class Run:
    """What is trained on what, where it is written, and how often it reports.

    log_every, save_every, judge_every: iterations; `judge_every = 0` never judges before the end. cache: the folder of
    decoded pictures. compiled: whether torch.compile translates the network first.
    """

    recipe: Recipe
    samples: tuple[Sample, ...]
    data: TrainingData
    folder: Path
    teacher: Path | None = None
    cache: Path = field(default_factory=default_cache)
    compiled: bool = False
    log_every: int = 20
    save_every: int = 200
    judge_every: int = 0


@dataclass
class _Progress:
    """Everything that changes while a run goes on; saved and loaded as one."""

    mgn: MGN
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    iteration: int = 0

    def state(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "mgn": self.mgn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "random": torch.get_rng_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.mgn.load_state_dict(state["mgn"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])


def train(run: Run, processes: Processes, resume: bool = False, judge: Judge | None = None) -> Checkpoint:
    """Train to the end of the recipe and write the checkpoint into the run's folder.

    With `resume` the run goes on from its newest saved state: every batch and every augmentation follows from the seed
    and the iteration's number, so it ends with the weights that it would have ended with.

    Raises TrainingError if the folder holds another run, there is nothing to resume, or a loss is no finite number;
    RunStopped after SIGTERM or Ctrl-C, with the state saved; DataError for pictures that cannot be read.
    """
    recipe = run.recipe
    _check(run, processes)
    torch.manual_seed(recipe.seed)
    pids = sorted({sample.pid for sample in run.samples})
    labels = np.searchsorted(pids, [sample.pid for sample in run.samples]).astype(np.int64)
    progress = _start(recipe, len(pids), processes)
    if resume:
        progress.load(_state_of(run))
    elif saved_states(run.folder):
        raise TrainingError(f"{run.folder} already holds a run: go on with --resume or choose another --out")
    batches = _batches(run, labels, processes)
    if processes.leads:
        run.folder.mkdir(parents=True, exist_ok=True)
        with (
            stop_requests() as stop,
            opened_journal(run.folder, recipe.schedule.iterations, progress.iteration) as told,
        ):
            _learn(run, processes, progress, batches, stop, told, judge)
    else:
        with stop_requests() as stop:
            _learn(run, processes, progress, batches, stop, None, None)
    checkpoint = _checkpoint(run, progress)
    if processes.leads:
        checkpoint = save_checkpoint(run.folder / CHECKPOINT_FILE, *checkpoint)
    processes.wait()
    return checkpoint


def _check(run: Run, processes: Processes) -> None:
    if (run.teacher is None) != (run.recipe.distillation is None):
        raise RecipeError("a teacher's features (--teacher) and the recipe's section [distillation] need each other")
    if run.recipe.batch.identities % processes.count:
        raise RecipeError(
            f"{run.recipe.batch.identities} identities a batch cannot be shared out evenly among "
            f"{processes.count} processes"
        )
    if run.recipe.batch_norm == "synchronised" and processes.device.type != "cuda":
        raise RecipeError('batch_norm = "synchronised" needs GPUs: torch has it for no other device')


def _start(recipe: Recipe, classes: int, processes: Processes) -> _Progress:
    backbone = initial_backbone(recipe.architecture.backbone, recipe.initialisation)
    mgn = MGN(backbone, recipe.architecture, classes)
    if recipe.batch_norm == "synchronised":
        mgn = nn.SyncBatchNorm.convert_sync_batchnorm(mgn)  # type: ignore[no-untyped-call]
    mgn = mgn.to(processes.device).to(memory_format=torch.channels_last)
    for parameter in _frozen(mgn, recipe).parameters():
        parameter.requires_grad_(False)
    scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "float16")
    average = None
    if recipe.average:
        move = get_ema_multi_avg_fn(recipe.average.decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(mgn, multi_avg_fn=move, use_buffers=True)
    return _Progress(mgn, _optimizer(mgn, recipe), scaler, average)


def _frozen(mgn: MGN, recipe: Recipe) -> nn.Module:
    return mgn.trunk[: recipe.initialisation.frozen_trunk_blocks]


def _optimizer(mgn: MGN, recipe: Recipe) -> torch.optim.Optimizer:
    how = recipe.optimizer
    pretrained = [*mgn.trunk.parameters(), *mgn.branches.parameters()]
    known = {id(parameter) for parameter in pretrained}
    fresh = [parameter for parameter in mgn.parameters() if id(parameter) not in known]
    groups = [
        {
            "params": [p for p in pretrained if p.requires_grad],
            "peak": how.learning_rate,
            "frozen_iterations": recipe.initialisation.frozen_iterations,
        },
        {"params": fresh, "peak": how.head_learning_rate, "frozen_iterations": 0},
    ]
    if how.kind == "adamw":
        return torch.optim.AdamW(groups, lr=how.learning_rate, weight_decay=how.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=how.learning_rate, momentum=how.momentum, weight_decay=how.weight_decay, fused=True
    )


def _batches(run: Run, labels: np.ndarray[Any, np.dtype[np.int64]], processes: Processes) -> Batches:
    recipe, paths = run.recipe, [sample.path for sample in run.samples]
    try:
        sampler = IdentitySampler(labels, recipe.batch.identities, recipe.batch.crops, recipe.seed)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    teacher = read_teacher(run.teacher, run.samples) if run.teacher else None
    if processes.leads:
        cached_inputs(paths, recipe.input, run.cache)
    processes.wait()
    inputs = cached_inputs(paths, recipe.input, run.cache)
    return Batches(inputs, labels, sampler, recipe.augmentation, recipe.seed, processes, teacher)


def _learn(
    run: Run,
    processes: Processes,
    progress: _Progress,
    batches: Batches,
    stop: StopRequest,
    journal: Journal | None,
    judge: Judge | None,
) -> None:
    """The loop: from the iteration that the progress is at to the recipe's last."""
    recipe, step = run.recipe, _Step(run, processes, progress)
    last, accumulation = recipe.schedule.iterations, recipe.batch.accumulation
    stream = batches.stream(progress.iteration * accumulation, last * accumulation)
    unchecked: list[Tensor] = []
    while progress.iteration < last:
        unchecked.append(step([next(stream) for _ in range(accumulation)]))
        progress.iteration += 1
        if journal:
            journal.count(recipe.batch.identities * recipe.batch.crops * accumulation)
        stopping = processes.any(bool(stop.signal_number))
        saving = stopping or progress.iteration % run.save_every == 0 or progress.iteration == last
        if saving or progress.iteration % run.log_every == 0:
            figures = _checked(run, processes, progress, batches, unchecked)
            unchecked = []
            if journal:
                journal.training(progress.iteration, figures | {"learning_rate": step.learning_rate})
        if saving and processes.leads:
            save_state(run.folder, progress.iteration, {"run": _fingerprint(run)} | progress.state())
        if stopping:
            processes.wait()
            raise RunStopped(
                f"stopped after iteration {progress.iteration} of {last}; go on with --resume", stop.signal_number
            )
        if journal and judge and run.judge_every and progress.iteration % run.judge_every == 0:
            journal.validation(progress.iteration, judge(_checkpoint(run, progress)))


class _Step:
    """One iteration: forward, losses, backward and update, of as many batches as the recipe adds up."""

    def __init__(self, run: Run, processes: Processes, progress: _Progress) -> None:
        self._recipe = run.recipe
        self._processes = processes
        self._progress = progress
        self._normalise = Normalise(run.recipe.input).to(processes.device)
        self._network: nn.Module = progress.mgn
        if run.compiled:
            self._network.compile(mode="reduce-overhead" if processes.device.type == "cuda" else "default")
        if processes.count > 1:
            self._network = DistributedDataParallel(self._network)

    @property
    def learning_rate(self) -> float:
        """That of the layers which started from random numbers."""
        return float(self._progress.optimizer.param_groups[-1]["lr"])

    def __call__(self, batches: list[Batch]) -> Tensor:
        """`(4,)`: the loss and its parts softmax, triplet and distillation, means over the batches."""
        progress, recipe = self._progress, self._recipe
        _to_training_mode(progress.mgn, recipe)
        _set_rates(progress, recipe)
        progress.optimizer.zero_grad()
        told = []
        for number, batch in enumerate(batches):
            with self._synchronising(number + 1 == len(batches)):
                losses = self._losses(batch)
                torch.autograd.backward(progress.scaler.scale(losses[0] / len(batches)))
            told.append(losses.detach())
        if recipe.optimizer.gradient_clip:
            progress.scaler.unscale_(progress.optimizer)
            nn.utils.clip_grad_norm_(progress.mgn.parameters(), recipe.optimizer.gradient_clip)
        progress.scaler.step(progress.optimizer)
        progress.scaler.update()
        if progress.average:
            progress.average.update_parameters(progress.mgn)
        return torch.stack(told).mean(dim=0)

    def _losses(self, batch: Batch) -> Tensor:
        recipe, processes = self._recipe, self._processes
        images = to_images(batch, recipe.augmentation, self._normalise, processes.device)
        labels = batch.labels.to(processes.device, non_blocking=True)
        precision = _PRECISIONS[recipe.precision]
        with torch.autocast(processes.device.type, precision, enabled=precision != torch.float32):
            output: MGNOutput = self._network(images)
        softmax = _softmax(output, labels, recipe.loss)
        parts, all_labels = processes.gather(output.parts.float()), processes.gather(labels)
        penalty = hinge(recipe.loss.margin) if recipe.loss.triplet == "hinge" else soft_margin
        triplet = global_triplet_loss(parts, all_labels, penalty, recipe.loss.normalise_triplet)
        distillation = torch.zeros_like(triplet)
        if batch.teacher is not None and recipe.distillation:
            teacher = processes.gather(batch.teacher.to(processes.device, non_blocking=True))
            embeddings = unit_parts(parts).flatten(1)
            distillation = recipe.distillation.weight * similarity_distillation_loss(embeddings, teacher)
        return torch.stack([softmax + triplet + distillation, softmax, triplet, distillation])

    def _synchronising(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once an iteration, with the last of its batches."""
        if isinstance(self._network, DistributedDataParallel) and not last:
            return self._network.no_sync()
        return nullcontext()


def _softmax(output: MGNOutput, labels: Tensor, loss: Loss) -> Tensor:
    logits = [part.float() for part in output.logits]
    if loss.softmax == "circle":
        return circle_loss(logits, labels, loss.circle_scale, loss.circle_margin)
    return softmax_loss(logits, labels, loss.label_smoothing)


def _to_training_mode(mgn: MGN, recipe: Recipe) -> None:
    mgn.train()
    _frozen(mgn, recipe).eval()
    if recipe.batch_norm == "frozen":
        for module in mgn.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _set_rates(progress: _Progress, recipe: Recipe) -> None:
    share = rate(progress.iteration, recipe.schedule)
    for group in progress.optimizer.param_groups:
        group["lr"] = group["peak"] * share if progress.iteration >= group["frozen_iterations"] else 0.0


def _checked(
    run: Run, processes: Processes, progress: _Progress, batches: Batches, unchecked: list[Tensor]
) -> dict[str, float]:
    """The mean losses of the last iterations, by name. Raises TrainingError if one was no finite number.

    Losses are looked at only now and then, as each look waits for the GPU, but always before a state is saved.
    """
    losses = processes.mean(torch.stack(unchecked)).cpu()
    finite = torch.isfinite(losses).all(dim=1)
    if not finite.all():
        iteration = progress.iteration - len(unchecked) + int((~finite).nonzero()[0])
        numbers = range(iteration * run.recipe.batch.accumulation, (iteration + 1) * run.recipe.batch.accumulation)
        crops = [str(run.samples[i].path) for number in numbers for i in batches.crops_of(number)]
        if processes.leads:
            (run.folder / BAD_BATCH_FILE).write_text("\n".join(crops) + "\n", encoding="utf-8")
        raise TrainingError(
            f"the loss of iteration {iteration + 1} is no finite number; its crops are listed in "
            f"{run.folder / BAD_BATCH_FILE}. Lower the learning rate or look at them, then start again or --resume"
        )
    names = ("loss", "softmax", "triplet", "distillation")
    means = dict(zip(names, (round(value, 5) for value in losses.mean(dim=0).tolist()), strict=True))
    return means if run.recipe.distillation else {name: means[name] for name in names[:3]}


def _checkpoint(run: Run, progress: _Progress) -> Checkpoint:
    """The network as it is, or the moving average of it, without classifiers and counters."""
    network = progress.average.module if progress.average else progress.mgn
    weights = {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.startswith("classifiers.") and not name.endswith("num_batches_tracked")
    }
    metadata = CheckpointMetadata(
        name=run.recipe.name,
        architecture=run.recipe.architecture,
        input=run.recipe.input,
        training_data=run.data,
        recipe=run.recipe.model_dump(mode="json"),
    )
    return Checkpoint(weights, metadata)


def _fingerprint(run: Run) -> dict[str, Any]:
    return {"recipe": run.recipe.model_dump(mode="json"), "data": run.data.model_dump(mode="json")}


def _state_of(run: Run) -> dict[str, Any]:
    state = load_newest_state(run.folder)
    if state["run"] != _fingerprint(run):
        raise TrainingError(f"{run.folder} holds a run of another recipe or other data: choose another --out")
    return state
