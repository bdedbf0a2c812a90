"""`python -m model train`: train by a recipe, and judge the result on identities held out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.checkpoint import Checkpoint, TrainingData, load_checkpoint, save_checkpoint
from model.commands.common import console, judge, measured_result, show
from model.datasets import open_data_sets
from model.datasets.base import EvaluationSplit, hold_out, size_notes
from model.datasets.selection import some_identities
from model.errors import RecipeError

if TYPE_CHECKING:
    from model.train import Run


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, or the name of a recipe that ships with Passerby")],
    data: Annotated[
        list[str], typer.Option(help="KIND:FOLDER, for instance folder:crops; several are trained on together")
    ],
    out: Annotated[Path, typer.Option(help="The folder that the run is written into")],
    hold_out_identities: Annotated[
        int,
        typer.Option("--hold-out", min=0, help="Identities kept from training and used to judge its result"),
    ] = 0,
    identities: Annotated[
        int | None, typer.Option(min=2, help="Train on so many of the identities only, for quick comparisons")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out")] = False,
    teachers: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="NPZ files with a better network's features of the training crops"),
    ] = None,
    teacher_name: Annotated[
        str | None, typer.Option(help="That network and its licence, as the checkpoint is to tell them")
    ] = None,
    first: Annotated[
        Path | None,
        typer.Option("--from", help="A .safetensors checkpoint to go on from, in place of the recipe's first weights"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe: schedule.iterations=20")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded pictures [default: ~/.cache/passerby]")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Translate the network with torch.compile first")] = False,
    log_every: Annotated[int, typer.Option(min=1, help="Iterations between lines of the log")] = 20,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between saved states")] = 200,
    judge_every: Annotated[
        int, typer.Option(min=0, help="Iterations between judgements on the identities held out; 0: only at the end")
    ] = 0,
) -> None:
    """Train by a recipe, and judge the result on the identities held out.

    Under torchrun, the processes share each batch. A run that was stopped or killed goes on with --resume.
    """
    from model.initialisation import converted_network
    from model.recipe import parse_changes, read_recipe, recipe_path
    from model.train import CHECKPOINT_FILE, Run
    from model.train import train as run_training
    from model.training.inputs import default_cache
    from model.training.machine import keep_freed_memory, slow_precision
    from model.training.processes import joined_processes

    if bool(teachers) != (teacher_name is not None):
        raise RecipeError("--teacher FILE and --teacher-name TEXT go together: a checkpoint tells what it learned from")
    chosen = read_recipe(recipe_path(recipe), parse_changes(settings or []))
    data_set = open_data_sets(data)
    started_from = load_checkpoint(first) if first else None
    teaches_itself = chosen.distillation is not None and chosen.distillation.teacher == "initial"
    origin = started_from.metadata.model_id if started_from else converted_network(chosen)
    samples, split = data_set.train(), None
    notes = [*size_notes(data_set, {"train": samples})]
    if hold_out_identities:
        samples, split = hold_out(samples, hold_out_identities)
    if identities is not None:
        samples = some_identities(samples, identities)
    facts = TrainingData(
        name=data_set.name,
        terms=data_set.terms,
        identities=len({sample.pid for sample in samples}),
        crops=len(samples),
        held_out_identities=hold_out_identities,
        teacher=origin if teaches_itself else teacher_name,
        started_from=origin,
    )
    run = Run(
        chosen,
        samples,
        facts,
        out,
        teachers=tuple(teachers or ()),
        first=started_from,
        cache=cache or default_cache(),
        compiled=compiled,
        log_every=log_every,
        save_every=save_every,
        judge_every=judge_every,
    )
    if started_from and split and _has_seen(started_from.metadata.training_data, facts):
        notes.append(
            f"{facts.started_from} has learned from identities that are held out now: the results say nothing of others"
        )
    keep_freed_memory()
    with joined_processes() as processes:
        if processes.leads:
            console.print(f"{chosen.name}: {facts.crops:,} crops of {facts.identities:,} identities, into {out}")
            for note in (*notes, *slow_precision(chosen, processes.device)):
                console.print(f"[yellow]note:[/] {note}", soft_wrap=True)
        checkpoint = run_training(run, processes, resume, _judgement(split) if split else None)
        if not processes.leads:
            return
    if split:
        checkpoint = _judged(run, checkpoint, split, out / CHECKPOINT_FILE)
    console.print(f"{out / CHECKPOINT_FILE} is {checkpoint.metadata.model_id}")


def _judgement(split: EvaluationSplit) -> Callable[[Checkpoint], Mapping[str, float]]:
    def figures(checkpoint: Checkpoint) -> Mapping[str, float]:
        metrics = judge(checkpoint, split)
        return {"rank1": round(metrics.rank1, 5), "map_step": round(metrics.map_step, 5)}

    return figures


def _judged(run: "Run", checkpoint: Checkpoint, split: EvaluationSplit, path: Path) -> Checkpoint:
    """The checkpoint with its results on the identities held out, which are shown, reported and saved with it."""
    from model.evaluate import embed_split, evaluate_features
    from model.loading import inference_of
    from model.report import Judgement, write_report

    loaded = inference_of(checkpoint)
    features = embed_split(split, loaded.metadata.input, loaded.embed)
    metrics = evaluate_features(*features)
    result = measured_result(metrics, run.data.name, run.data.held_out_identities)
    show(metrics)
    judged = save_checkpoint(path, checkpoint.weights, checkpoint.metadata.model_copy(update={"results": (result,)}))
    name = f"{run.data.name}, {run.data.held_out_identities} identities held out"
    console.print(f"open {write_report(run.folder, judged, Judgement(name, split, features))}", soft_wrap=True)
    return judged


def _has_seen(before: TrainingData, now: TrainingData) -> bool:
    """Whether a checkpoint of the same data kept other identities from its training, or none."""
    return before.name == now.name and (before.held_out_identities, before.hold_out_seed) != (
        now.held_out_identities,
        now.hold_out_seed,
    )
