"""A training run from a command: told, carried out, and judged on the persons held out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, save_checkpoint
from model.commands.common import console, judge, measured_result, show
from model.commands.splits import ChosenSplit
from model.datasets.base import DataSet, EvaluationSplit, Sample
from model.datasets.joined import first_of
from model.evaluate import embed_split, evaluate_features
from model.loading import inference_of
from model.plain_network import NetworkMetadata
from model.provenance import Part, relation
from model.report import Judgement, write_report
from model.train import CHECKPOINT_FILE, Run, train
from model.training.machine import keep_freed_memory, slow_precision
from model.training.processes import joined_processes

Origin = CheckpointMetadata | NetworkMetadata
"""What a network says of itself that a training can start from."""


def training_data(
    samples: Sequence[Sample], data_set: DataSet, held_out: int, origin: Origin | None, teacher: str | None
) -> TrainingData:
    """What a checkpoint says of the data behind it. origin: the network that its training starts from, if any."""
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
    """What a run is judged on: the persons that it holds out of the first of its data sets."""
    name, part = first_of(data_set).name, Part("held out", data.held_out_identities, data.hold_out_seed)
    return ChosenSplit(split, name, part, relation(data, name, part))


def carry_out(run: Run, held_out: ChosenSplit | None, resume: bool, notes: Sequence[str]) -> None:
    """Train to the end, judge the result on the persons held out, if any, and say where it lies.

    Raises what `model.train.train` raises.
    """
    keep_freed_memory()
    with joined_processes() as processes:
        if processes.leads:
            data = run.data
            console.print(
                f"{run.recipe.name}: {data.crops:,} crops of {data.identities:,} identities, into {run.folder}"
            )
            for note in (*notes, *slow_precision(run.recipe, processes.device)):
                console.print(f"[yellow]note:[/] {note}", soft_wrap=True)
        checkpoint = train(run, processes, resume, _judgement(held_out.split) if held_out else None)
        if not processes.leads:
            return
    path = run.folder / CHECKPOINT_FILE
    if held_out:
        checkpoint = _judged(run.folder, checkpoint, held_out, path)
    console.print(f"{path} is {checkpoint.metadata.model_id}", soft_wrap=True)


def _judgement(split: EvaluationSplit) -> Callable[[Checkpoint], Mapping[str, float]]:
    def figures(checkpoint: Checkpoint) -> Mapping[str, float]:
        metrics = judge(checkpoint, split)
        return {"rank1": round(metrics.rank1, 5), "map_step": round(metrics.map_step, 5)}

    return figures


def _judged(folder: Path, checkpoint: Checkpoint, held_out: ChosenSplit, path: Path) -> Checkpoint:
    """The checkpoint with its results on the identities held out, which are shown, reported and saved with it."""
    loaded = inference_of(checkpoint)
    features = embed_split(held_out.split, loaded.metadata.input, loaded.embed)
    metrics = evaluate_features(*features)
    show(metrics)
    console.print(f"{held_out.name}: {held_out.standing}", soft_wrap=True)
    results = (measured_result(metrics, held_out),)
    judged = save_checkpoint(path, checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
    report = write_report(folder, judged, Judgement(held_out.name, held_out.split, features))
    console.print(f"open {report}", soft_wrap=True)
    return judged
