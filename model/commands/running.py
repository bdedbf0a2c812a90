"""A training run started by a command: train, evaluate on the held-out persons, report."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, load_checkpoint, save_checkpoint
from model.checks import require_text
from model.commands.common import (
    console,
    evaluate_in_memory,
    measured_result,
    require_memory_for,
    show,
    show_notes,
    show_split,
)
from model.commands.splits import ChosenSplit
from model.datasets.base import DataSet, EvaluationSplit, Sample
from model.errors import ModelError
from model.evaluate import embed_split, evaluate
from model.figures import percent
from model.loading import inference_of
from model.plain_network import NetworkMetadata
from model.report import EvaluatedSplit, write_report
from model.train import CHECKPOINT_FILE, Run, check_run, train
from model.training.machine import keep_freed_memory, slow_precision
from model.training.world import joined_world

Origin = CheckpointMetadata | NetworkMetadata
"""The metadata of a network that training can start from."""


def starting_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that training starts from. Raises CheckpointError; ModelError if it is no .safetensors file."""
    if path.suffix != ".safetensors":
        raise ModelError(f"--from is {path}; training starts from a .safetensors checkpoint only")
    return load_checkpoint(path)


def training_data(
    samples: Sequence[Sample], data_set: DataSet, held_out: int, origin: Origin | None, teacher: str | None
) -> TrainingData:
    """The record of a run's training data for its checkpoint.

    held_out: the number of held-out identities. origin: the network that the run starts from, if any. teacher: the
    teacher network with its licence, if any. Raises DataError for a name that cannot be stored.
    """
    require_text(data_set.name)
    return TrainingData(
        name=data_set.name,
        terms=data_set.terms,
        identities=len({sample.pid for sample in samples}),
        crops=len(samples),
        held_out_identities=held_out,
        teacher=teacher,
        started_from=origin.model_id if origin else None,
        started_from_data=origin.training_data if origin else None,
    )


def run_training(
    run: Run, held_out: ChosenSplit | None, resume: bool, notes: Sequence[str], compared: Checkpoint | None = None
) -> None:
    """Train to the end, evaluate the result on the held-out persons, if any, and print its path.

    compared: a checkpoint that is evaluated on these persons before. Raises the errors of `model.train.train`.
    """
    keep_freed_memory()
    with joined_world() as world:
        check_run(run, world, resume)
        if held_out:
            require_memory_for(held_out.split)
        if world.is_main_process:
            data = run.data
            console.print(
                f"{run.recipe.name}: {data.crops:,} crops of {data.identities:,} identities, into {run.folder}"
            )
            show_notes((*notes, *_single_crops(run.samples), *slow_precision(run.recipe, world.device)))
            if held_out and compared:
                show_notes([_figures_before(compared, held_out)])
        checkpoint = train(run, world, resume, _validation(held_out.split) if held_out else None)
        if not world.is_main_process:
            return
    path = run.folder / CHECKPOINT_FILE
    if held_out:
        checkpoint = _with_results(run.folder, checkpoint, held_out, path)
    console.print(f"{path} is {checkpoint.metadata.model_id}", soft_wrap=True)


def _single_crops(samples: Sequence[Sample]) -> tuple[str, ...]:
    """A note on persons with one crop, who show the network nothing but that crop."""
    crops = Counter(sample.pid for sample in samples)
    alone = sum(count == 1 for count in crops.values())
    if not alone:
        return ()
    return (f"{alone:,} of {len(crops):,} persons are on one crop, which a batch repeats: they teach little",)


def _figures_before(checkpoint: Checkpoint, held_out: ChosenSplit) -> str:
    metrics = evaluate_in_memory(checkpoint, held_out.split)
    figures = f"rank-1 {percent(metrics.rank1, 2)}, mAP (step) {percent(metrics.map_step, 2)}"
    return f"before adaptation, {checkpoint.metadata.model_id} reaches {figures} on the held-out persons"


def _validation(split: EvaluationSplit) -> Callable[[Checkpoint], Mapping[str, float]]:
    def validate(checkpoint: Checkpoint) -> Mapping[str, float]:
        metrics = evaluate_in_memory(checkpoint, split)
        return {"rank1": round(metrics.rank1, 5), "map_step": round(metrics.map_step, 5)}

    return validate


def _with_results(folder: Path, checkpoint: Checkpoint, held_out: ChosenSplit, path: Path) -> Checkpoint:
    """Evaluate on the held-out identities; print and report the results, and save them in the checkpoint."""
    features = embed_split(held_out.split, inference_of(checkpoint))
    metrics = evaluate(*features).metrics
    show(metrics)
    show_split(held_out, checkpoint.metadata)
    results = (measured_result(metrics, held_out),)
    saved = save_checkpoint(path, checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
    report = write_report(folder, saved, EvaluatedSplit(held_out.name, held_out.split, features, held_out.caveat))
    console.print(f"open {report}", soft_wrap=True)
    return saved
