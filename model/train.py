"""Training an MGN by a recipe: one loop, stoppable and resumable at any iteration, on one process or several."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, save_checkpoint
from model.datasets.base import Sample
from model.errors import RecipeError, RunStopped, TrainingError
from model.loading import inference_of, with_reference
from model.recipe import Recipe
from model.sampler import IdentitySampler, Sampler, SourcesSampler
from model.training.averaging import averaged_weights
from model.training.batches import Batches
from model.training.inputs import cached_inputs, default_cache
from model.training.journal import Journal, opened_journal
from model.training.map_cache import trunk_maps
from model.training.processes import Processes
from model.training.progress import Progress, start
from model.training.states import load_newest_state, save_state, saved_states
from model.training.step import Step
from model.training.stopping import StopRequest, stop_requests
from model.training.teacher import mirrored_embeddings, read_teacher, teacher_of

CHECKPOINT_FILE = "checkpoint.safetensors"
BAD_BATCH_FILE = "non-finite-batch.txt"

Judge = Callable[[Checkpoint], Mapping[str, float]]
"""Measures the network of a run that goes on; gives figures by name."""


@dataclass(frozen=True)
class Run:
    """What is trained on what, where it is written, and how often it reports.

    teachers: the files of its features. first: the checkpoint to go on from, in place of the recipe's first weights.
    log_every, save_every, judge_every: iterations; `judge_every = 0` never judges before the end. cache: the folder of
    decoded pictures, and of the maps of frozen trunks. compiled: whether torch.compile translates the network first.
    """

    recipe: Recipe
    samples: tuple[Sample, ...]
    data: TrainingData
    folder: Path
    teachers: tuple[Path, ...] = ()
    first: Checkpoint | None = None
    cache: Path = field(default_factory=default_cache)
    compiled: bool = False
    log_every: int = 20
    save_every: int = 200
    judge_every: int = 0


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
    progress = start(recipe, len(pids), processes, run.first)
    state = _state_of(run) if resume else None
    if not resume and saved_states(run.folder):
        raise TrainingError(f"{run.folder} already holds a run: go on with --resume or choose another --out")
    batches = _batches(run, labels, processes, progress)
    if state is not None:  # not before: maps and teacher are those of the network that the run started from
        progress.load(state)
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
        checkpoint = save_checkpoint(run.folder / CHECKPOINT_FILE, *with_reference(checkpoint))
    processes.wait()
    return checkpoint


def _check(run: Run, processes: Processes) -> None:
    how = run.recipe.distillation
    if bool(run.teachers) != (how is not None and how.teacher == "file"):
        raise RecipeError(
            "a teacher's features (--teacher) and the recipe's section [distillation] with teacher = \"file\" "
            "need each other"
        )
    if how and how.teacher == "initial" and run.first is None and not run.recipe.architecture.own_heads:
        raise RecipeError(
            '[distillation] teacher = "initial" needs a network that gives features before it is trained: --from a '
            "checkpoint, or architecture.own_heads of a converted network"
        )
    if run.recipe.average_with_first and run.first is None:
        raise RecipeError(
            "the recipe's section [average_with_first] needs a checkpoint to go on from: --from CHECKPOINT"
        )
    if run.recipe.batch.identities % processes.count:
        raise RecipeError(
            f"{run.recipe.batch.identities} identities a batch cannot be shared out evenly among "
            f"{processes.count} processes"
        )
    if run.recipe.batch_norm == "synchronised" and processes.device.type != "cuda":
        raise RecipeError('batch_norm = "synchronised" needs GPUs: torch has it for no other device')


def _batches(run: Run, labels: NDArray[np.int64], processes: Processes, progress: Progress) -> Batches:
    recipe, paths = run.recipe, [sample.path for sample in run.samples]
    sampler = _sampler(run, labels)
    if not processes.leads:
        processes.wait()  # until the first has filled the cache
    inputs = cached_inputs(paths, recipe.input, run.cache)
    frozen = recipe.initialisation.frozen_trunk_iterations
    taught_by_start = recipe.distillation is not None and recipe.distillation.teacher == "initial"
    maps = None
    if frozen or (taught_by_start and run.first is None):
        maps = trunk_maps(progress.mgn, recipe.input, paths, run.cache)
    if processes.leads:
        processes.wait()
    teacher = None
    if run.teachers:
        teacher = read_teacher(run.teachers, run.samples)
    elif taught_by_start and run.first is not None:
        teacher = teacher_of(mirrored_embeddings(inference_of(run.first).embed, inputs))
    elif taught_by_start and maps is not None and maps.features is not None:
        teacher = teacher_of(maps.features)
    map_batches = frozen * recipe.batch.accumulation
    return Batches(inputs, labels, sampler, recipe.augmentation, recipe.seed, processes, teacher, maps, map_batches)


def _sampler(run: Run, labels: NDArray[np.int64]) -> Sampler:
    batch, seed = run.recipe.batch, run.recipe.seed
    try:
        if batch.sources:
            sources = np.array([sample.source for sample in run.samples], dtype=np.int64)
            return SourcesSampler(labels, sources, batch.sources, batch.crops, seed)
        return IdentitySampler(labels, batch.identities, batch.crops, seed)
    except ValueError as error:
        raise TrainingError(str(error)) from error


def _learn(
    run: Run,
    processes: Processes,
    progress: Progress,
    batches: Batches,
    stop: StopRequest,
    journal: Journal | None,
    judge: Judge | None,
) -> None:
    """The loop: from the iteration that the progress is at to the recipe's last."""
    recipe, step = run.recipe, Step(run.recipe, processes, progress, run.compiled)
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


def _checked(
    run: Run, processes: Processes, progress: Progress, batches: Batches, unchecked: list[Tensor]
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


def _checkpoint(run: Run, progress: Progress) -> Checkpoint:
    """The network as it is, or the moving average of it, without classifiers and counters.

    Where the recipe says so, averaged with the weights that the run went on from.
    """
    network = progress.average.module if progress.average else progress.mgn
    weights = {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.startswith("classifiers.") and not name.endswith("num_batches_tracked")
    }
    if run.recipe.average_with_first and run.first:
        weights = averaged_weights(run.first.weights, weights, run.recipe.average_with_first.share)
    metadata = CheckpointMetadata(
        name=run.recipe.name,
        architecture=run.recipe.architecture,
        part_weights=run.recipe.part_weights,
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
