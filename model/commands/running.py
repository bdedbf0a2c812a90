"""A training run started by a command: train, evaluate on the held-out persons, report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, load_checkpoint, save_checkpoint
from model.commands.common import console, evaluate_in_memory, measured_result, show
from model.commands.splits import ChosenSplit
from model.datasets.base import DataSet, EvaluationSplit, Sample
from model.datasets.joined import first_of
from model.errors import ModelError
from model.evaluate import embed_split, evaluate
from model.loading import inference_of
from model.plain_network import NetworkMetadata
from model.provenance import Part, relation
from model.report import EvaluatedSplit, write_report
from model.train import CHECKPOINT_FILE, Run, train
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
    teacher network with its licence, if any.
    """
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


def held_out_split(split: EvaluationSplit, data_set: DataSet, data: TrainingData) -> ChosenSplit:
    """The persons that a run holds out of its first data set, as the split to evaluate its result on."""
    name, part = first_of(data_set).name, Part("held out", data.held_out_identities, data.hold_out_seed)
    return ChosenSplit(split, name, part, relation(data, name, part))


def run_training(run: Run, held_out: ChosenSplit | None, resume: bool, notes: Sequence[str]) -> None:
    """Train to the end, evaluate the result on the held-out persons, if any, and print its path.

    Raises the errors of `model.train.train`.
    """
    keep_freed_memory()
    with joined_world() as world:
        if world.is_main_process:
            data = run.data
            console.print(
                f"{run.recipe.name}: {data.crops:,} crops of {data.identities:,} identities, into {run.folder}"
            )
            for note in (*notes, *slow_precision(run.recipe, world.device)):
                console.print(f"[yellow]note:[/] {note}", soft_wrap=True)
        checkpoint = train(run, world, resume, _validation(held_out.split) if held_out else None)
        if not world.is_main_process:
            return
    path = run.folder / CHECKPOINT_FILE
    if held_out:
        checkpoint = _with_results(run.folder, checkpoint, held_out, path)
    console.print(f"{path} is {checkpoint.metadata.model_id}", soft_wrap=True)


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
    console.print(f"{held_out.name}: {held_out.caveat}", soft_wrap=True)
    results = (measured_result(metrics, held_out),)
    saved = save_checkpoint(path, checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
    report = write_report(folder, saved, EvaluatedSplit(held_out.name, held_out.split, features))
    console.print(f"open {report}", soft_wrap=True)
    return saved
