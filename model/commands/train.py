"""`python -m model train`: train by a recipe, and evaluate the result on held-out identities."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import ThreadsOption
from model.commands.splits import held_out_split, judged_by_run
from model.datasets import open_data_sets
from model.datasets.base import size_notes
from model.datasets.selection import select_identities
from model.errors import RecipeError


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, or the name of a recipe shipped with Passerby")],
    data: Annotated[list[str], typer.Option(help="KIND:FOLDER, for instance folder:crops; may be repeated")],
    out: Annotated[Path, typer.Option(help="The folder to write the run into")],
    hold_out_identities: Annotated[
        int,
        typer.Option(
            "--hold-out", min=0, help="Identities of the first --data to hold out, for evaluation of the result"
        ),
    ] = 0,
    identities: Annotated[
        int | None, typer.Option(min=2, help="Train on only N of the identities, for quick comparisons")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out")] = False,
    teachers: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="NPZ files with the teacher network's features of the training crops"),
    ] = None,
    teacher_name: Annotated[
        str | None, typer.Option(help="The teacher network and its licence, for the checkpoint's metadata")
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="The terms of use of the data, if the data set does not state them")
    ] = None,
    first: Annotated[
        Path | None,
        typer.Option("--from", help="A .safetensors checkpoint to start from, instead of the recipe's initial weights"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value of the recipe: schedule.iterations=20")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded pictures [default: ~/.cache/passerby]")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile")] = False,
    log_every: Annotated[int, typer.Option(min=1, help="Iterations between lines of the log")] = 20,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between saved states")] = 200,
    validate_every: Annotated[
        int,
        typer.Option(
            "--judge-every",
            min=0,
            help="Iterations between evaluations on the held-out identities; 0: only at the end",
        ),
    ] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Train by a recipe, and evaluate the result on the held-out identities.

    Under torchrun, the processes split each batch. Continue a stopped or killed run with --resume.
    """
    from model.commands.running import run_training, starting_checkpoint, training_data
    from model.initialisation import converted_network, initial_backbone
    from model.recipe import parse_overrides, read_recipe, recipe_path
    from model.train import Run
    from model.training.inputs import default_cache

    if bool(teachers) != (teacher_name is not None):
        raise RecipeError("--teacher FILE and --teacher-name TEXT go together: a checkpoint records its teacher")
    if str(recipe) == "adapt":
        raise RecipeError("`adapt` is the recipe of `python -m model adapt`, which takes all else from a checkpoint")
    chosen = read_recipe(recipe_path(recipe), parse_overrides(settings or []))
    data_set = open_data_sets(data)
    started_from = starting_checkpoint(first) if first else None
    if started_from is None and not resume:
        initial_backbone(chosen.architecture, chosen.initialisation)  # weights that are missing are reported at once
    origin = started_from.metadata if started_from else converted_network(chosen)
    samples, judged = data_set.train(), None
    notes = [*size_notes(data_set, {"train": samples}), *data_set.notes("train")]
    if hold_out_identities:
        samples, judged = held_out_split(data_set, hold_out_identities)
    if identities is not None:
        samples = select_identities(samples, identities)
    teacher = origin.model_id if chosen.teacher == "initial" and origin else teacher_name
    recorded = training_data(samples, data_set, hold_out_identities, origin, teacher)
    if terms is not None:
        recorded = recorded.model_copy(update={"terms": terms})
    run = Run(
        chosen,
        samples,
        recorded,
        out,
        teachers=tuple(teachers or ()),
        initial=started_from,
        cache=cache or default_cache(),
        compiled=compiled,
        log_every=log_every,
        save_every=save_every,
        validate_every=validate_every,
    )
    held_out = judged_by_run(judged, data_set, recorded) if judged else None
    if held_out and held_out.seen:
        notes.append(
            f"{recorded.started_from} was trained on the held-out identities: these results do not generalise to others"
        )
    run_training(run, held_out, resume, notes)
