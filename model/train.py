"""Training an MGN by a recipe, in one process or several; a run resumes from any saved iteration."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, save_checkpoint
from model.checks import require_disk, require_output_folder, require_pictures
from model.datasets.base import Sample
from model.errors import RecipeError, RunStopped, TrainingError
from model.loading import inference_of, with_reference
from model.recipe import Recipe
from model.sampler import IdentitySampler, Sampler, SourcesSampler
from model.training.averaging import averaged_weights
from model.training.batches import Batches
from model.training.inputs import cached_inputs, default_cache, missing_bytes
from model.training.map_cache import TrunkMaps, trunk_maps
from model.training.map_cache import missing_bytes as missing_map_bytes
from model.training.run_log import RunLog, open_run_log
from model.training.states import load_newest_state, save_state, saved_states, unusable_state
from model.training.step import Step
from model.training.stopping import StopRequest, stop_requests
from model.training.teacher import Teacher, mirrored_embeddings, read_teacher, teacher_from_features
from model.training.train_state import TrainState, initial_state, states_bytes
from model.training.world import World

CHECKPOINT_FILE = "checkpoint.safetensors"
BAD_BATCH_FILE = "non-finite-batch.txt"

_OTHER_CACHE = "choose another folder with --cache"

Validate = Callable[[Checkpoint], Mapping[str, float]]
"""Evaluates the current network of a run; returns metrics by name."""


@dataclass(frozen=True)
class Run:
    """A training run: its recipe, data and folder, and how often it logs, saves and validates.

    teachers: files with the teacher's features. initial: a checkpoint whose weights replace the recipe's
    initialisation. cache: the folder of decoded pictures and of frozen trunks' maps. compiled: whether to use
    torch.compile. log_every, save_every, validate_every: in iterations; `validate_every = 0` never validates.
    """

    recipe: Recipe
    samples: tuple[Sample, ...]
    data: TrainingData
    folder: Path
    teachers: tuple[Path, ...] = ()
    initial: Checkpoint | None = None
    cache: Path = field(default_factory=default_cache)
    compiled: bool = False
    log_every: int = 20
    save_every: int = 200
    validate_every: int = 0


def train(run: Run, world: World, resume: bool = False, validate: Validate | None = None) -> Checkpoint:
    """Train to the end of the recipe and write the checkpoint into the run's folder.

    `resume` continues from the newest saved state. Batches and augmentation depend only on the seed and the iteration,
    so the weights are those of an uninterrupted run.

    Raises TrainingError if the folder holds another run, there is nothing to resume, or a loss is not finite;
    RunStopped after SIGTERM or Ctrl-C, with the state saved; DataError for a picture that cannot be read.
    """
    recipe = run.recipe
    saved = check_run(run, world, resume)
    torch.manual_seed(recipe.seed)
    labels = _labels(run)
    state = initial_state(recipe, int(labels.max()) + 1, world, run.initial)
    batches = training_batches(run, labels, world, state)
    if saved is not None:  # after training_batches: maps and teacher are of the initial network
        _restore(run, state, saved)
    if world.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
    with stop_requests() as stop, _run_log(run, world, state) as run_log:
        _train_loop(run, world, state, batches, stop, run_log, validate)
    checkpoint = _checkpoint(run, state)
    if world.is_main_process:
        checkpoint = save_checkpoint(run.folder / CHECKPOINT_FILE, *with_reference(checkpoint))
    world.barrier()
    return checkpoint


def check_run(run: Run, world: World, resume: bool) -> dict[str, Any] | None:
    """Check all that can be known of a run before its first long step; returns the state that it resumes from.

    Checks that recipe, data, teacher and processes fit each other, that pictures are there, that the folders can be
    written and hold this run or none, and that the disk has space for states and decoded pictures. Raises ModelError.
    """
    _check_recipe(run, world)
    _sampler(run, _labels(run))
    require_output_folder("--out", run.folder)
    require_output_folder("--cache", run.cache)
    saved = _saved_state(run) if resume else None
    if not resume and saved_states(run.folder):
        raise TrainingError(f"{run.folder} already holds a run: continue it with --resume or choose another --out")
    if saved is None and (run.folder / CHECKPOINT_FILE).exists():
        raise TrainingError(f"{run.folder} already holds a checkpoint, which would be lost: choose another --out")
    require_pictures(run.samples)
    paths = [sample.path for sample in run.samples]
    require_disk(
        run.cache, missing_bytes(paths, run.recipe.input, run.cache), "the cache of decoded pictures", _OTHER_CACHE
    )
    if world.is_main_process and saved is None:
        require_disk(run.folder, states_bytes(run.recipe, len(set(_labels(run)))), "the run", "choose another --out")
    if run.teachers:
        read_teacher(run.teachers, run.samples)
    return saved


def _labels(run: Run) -> NDArray[np.int64]:
    """`(N,)`: each sample's identity from 0, in the order of the pids."""
    pids = sorted({sample.pid for sample in run.samples})
    return np.searchsorted(pids, [sample.pid for sample in run.samples]).astype(np.int64)


def _restore(run: Run, state: TrainState, saved: dict[str, Any]) -> None:
    try:
        state.load_state_dict(saved)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise unusable_state(run.folder, f"it does not fit the network: {error}") from error


def _check_recipe(run: Run, world: World) -> None:
    """Raise RecipeError if the recipe does not fit the run's other inputs or the processes."""
    recipe = run.recipe
    if bool(run.teachers) != (recipe.teacher == "file"):
        raise RecipeError(
            "a teacher's features (--teacher) and the recipe's section [distillation] with teacher = \"file\" "
            "need each other: give both or neither"
        )
    if recipe.teacher == "initial" and run.initial is None and not recipe.architecture.own_heads:
        raise RecipeError(
            '[distillation] teacher = "initial" needs a network that gives features before it is trained: --from a '
            "checkpoint, or architecture.own_heads of a converted network"
        )
    if recipe.average_with_first and run.initial is None:
        raise RecipeError(
            "the recipe's section [average_with_first] needs a checkpoint to start from: --from CHECKPOINT"
        )
    if recipe.batch.identities % world.size:
        raise RecipeError(
            f"{recipe.batch.identities} identities per batch cannot be split evenly between {world.size} processes"
        )
    if recipe.batch_norm == "synchronised" and world.device.type != "cuda":
        raise RecipeError('batch_norm = "synchronised" needs GPUs: torch implements it for no other device')


def training_batches(run: Run, labels: NDArray[np.int64], world: World, state: TrainState) -> Batches:
    """The batches of a run, with the trunk's maps and the teacher that its recipe needs.

    labels: `(N,)`, each sample's identity from 0. Raises DataError and TrainingError.
    """
    recipe, paths = run.recipe, [sample.path for sample in run.samples]
    sampler = _sampler(run, labels)
    frozen = recipe.initialisation.frozen_trunk_iterations
    needs_maps = bool(frozen) or (recipe.teacher == "initial" and run.initial is None)
    if needs_maps and world.is_main_process:
        needed = missing_bytes(paths, recipe.input, run.cache)
        needed += missing_map_bytes(state.mgn, recipe.input, paths, run.cache)
        require_disk(run.cache, needed, "the cache of decoded pictures and of the trunk's maps", _OTHER_CACHE)
    if not world.is_main_process:
        world.barrier()  # until the main process has filled the cache
    inputs = cached_inputs(paths, recipe.input, run.cache)
    maps = None
    if needs_maps:
        maps = trunk_maps(state.mgn, recipe.input, paths, run.cache)
    if world.is_main_process:
        world.barrier()
    teacher = _teacher(run, inputs, maps)
    map_batches = frozen * recipe.batch.accumulation
    return Batches(inputs, labels, sampler, recipe.augmentation, recipe.seed, world, teacher, maps, map_batches)


def _teacher(run: Run, inputs: NDArray[np.uint8], maps: TrunkMaps | None) -> Teacher | None:
    """The teacher from files, from the initial checkpoint, or from the pretrained head of a converted network."""
    if run.teachers:
        return read_teacher(run.teachers, run.samples)
    if run.recipe.teacher != "initial":
        return None
    if run.initial is not None:
        return teacher_from_features(mirrored_embeddings(inference_of(run.initial).embed, inputs))
    return teacher_from_features(maps.features) if maps is not None and maps.features is not None else None


def _run_log(run: Run, world: World, state: TrainState) -> AbstractContextManager[RunLog | None]:
    """The run's log in the main process, None in the others."""
    if not world.is_main_process:
        return nullcontext()
    return open_run_log(run.folder, run.recipe.schedule.iterations, state.iteration)


def _sampler(run: Run, labels: NDArray[np.int64]) -> Sampler:
    batch, seed = run.recipe.batch, run.recipe.seed
    try:
        if batch.sources:
            sources = np.array([sample.source for sample in run.samples], dtype=np.int64)
            return SourcesSampler(labels, sources, batch.sources, batch.crops, seed)
        return IdentitySampler(labels, batch.identities, batch.crops, seed)
    except ValueError as error:
        raise TrainingError(str(error)) from error


def _train_loop(
    run: Run,
    world: World,
    state: TrainState,
    batches: Batches,
    stop: StopRequest,
    run_log: RunLog | None,
    validate: Validate | None,
) -> None:
    """Train from the state's iteration to the recipe's last one; log and validate in the process with a log."""
    recipe, step = run.recipe, Step(run.recipe, world, state, run.compiled)
    last, accumulation = recipe.schedule.iterations, recipe.batch.accumulation
    stream = batches.stream(state.iteration * accumulation, last * accumulation)
    unchecked: list[Tensor] = []
    while state.iteration < last:
        unchecked.append(step([next(stream) for _ in range(accumulation)]))
        state.iteration += 1
        if run_log:
            run_log.count_crops(recipe.batch.identities * recipe.batch.crops * accumulation)
        stopping = world.any(bool(stop.signal_number))
        saving = stopping or state.iteration % run.save_every == 0 or state.iteration == last
        if saving or state.iteration % run.log_every == 0:
            figures = _checked_losses(run, world, state, batches, unchecked)
            unchecked = []
            if run_log:
                run_log.log_training(state.iteration, figures | {"learning_rate": step.learning_rate})
        if saving and world.is_main_process:
            save_state(run.folder, state.iteration, {"run": _fingerprint(run)} | state.state_dict())
        if stopping:
            world.barrier()
            raise RunStopped(
                f"stopped after iteration {state.iteration} of {last}; continue with --resume", stop.signal_number
            )
        if run_log and validate and run.validate_every and state.iteration % run.validate_every == 0:
            run_log.log_validation(state.iteration, validate(_checkpoint(run, state)))


def _checked_losses(
    run: Run, world: World, state: TrainState, batches: Batches, unchecked: list[Tensor]
) -> dict[str, float]:
    """The mean losses of the unchecked iterations, by name. Raises TrainingError if a loss is not finite.

    Reading a loss waits for the GPU, so losses are checked in groups, and always before a state is saved.
    """
    losses = world.mean(torch.stack(unchecked)).cpu()
    finite = torch.isfinite(losses).all(dim=1)
    if not finite.all():
        iteration = state.iteration - len(unchecked) + int((~finite).nonzero()[0])
        numbers = range(iteration * run.recipe.batch.accumulation, (iteration + 1) * run.recipe.batch.accumulation)
        crops = [str(run.samples[i].path) for number in numbers for i in batches.crop_indices(number)]
        if world.is_main_process:
            (run.folder / BAD_BATCH_FILE).write_bytes(os.fsencode("\n".join(crops) + "\n"))
        raise TrainingError(
            f"the loss of iteration {iteration + 1} is not a finite number; its crops are listed in "
            f"{run.folder / BAD_BATCH_FILE}. "
            "Check these crops or lower the learning rate, then start again or use --resume"
        )
    names = ("loss", "softmax", "triplet", "distillation")
    means = dict(zip(names, (round(value, 5) for value in losses.mean(dim=0).tolist()), strict=True))
    return means if run.recipe.distillation else {name: means[name] for name in names[:3]}


def _checkpoint(run: Run, state: TrainState) -> Checkpoint:
    """The current network or its moving average, without classifiers and batch counters.

    With the recipe's section `average_with_first`, its weights are averaged with the initial ones.
    """
    network = state.average.module if state.average else state.mgn
    weights = {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.startswith("classifiers.") and not name.endswith("num_batches_tracked")
    }
    if run.recipe.average_with_first and run.initial:
        weights = averaged_weights(run.initial.weights, weights, run.recipe.average_with_first.share)
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
    """The recipe and data of a run; a run resumes only from a state with an equal fingerprint."""
    return {"recipe": run.recipe.model_dump(mode="json"), "data": run.data.model_dump(mode="json")}


def _saved_state(run: Run) -> dict[str, Any]:
    state = load_newest_state(run.folder)
    if state.get("run") != _fingerprint(run):
        raise TrainingError(f"{run.folder} holds a run with another recipe or other data: choose another --out")
    return state
