"""`python -m model adapt`: fine-tune a checkpoint on a few hundred confirmed crops of a site."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from model.checkpoint import Checkpoint
from model.commands.common import ThreadsOption, console
from model.commands.splits import ChosenSplit, held_out_split, judged_by_run
from model.datasets import open_data_sets
from model.datasets.base import Sample
from model.datasets.selection import select_identities


def adapt(
    first: Annotated[Path, typer.Option("--from", help="The .safetensors checkpoint to adapt")],
    data: Annotated[list[str], typer.Option(help="The site's confirmed crops: folder:FOLDER or manifest:FILE.csv")],
    out: Annotated[Path, typer.Option(help="The folder to write the run into")],
    hold_out_identities: Annotated[
        int,
        typer.Option(
            "--hold-out", min=0, help="Identities of the first --data to hold out, for evaluation of the result"
        ),
    ] = 0,
    identities: Annotated[
        int | None, typer.Option(min=8, help="Adapt with only N of the persons, for comparisons")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value of the recipe `adapt`: schedule.iterations=100")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded pictures [default: ~/.cache/passerby]")] = None,
    log_every: Annotated[int, typer.Option(min=1, help="Iterations between lines of the log")] = 10,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between saved states")] = 50,
    threads: ThreadsOption = None,
) -> None:
    """Adapt a checkpoint to a site's own cameras with a few hundred confirmed crops.

    Trains all layers at a low learning rate on the persons seen by two cameras, with the checkpoint itself as the
    teacher; the result averages the weights before and after. Continue a stopped run with --resume.
    """
    from model.adaptation import adaptation_recipe, usable_crops
    from model.commands.running import run_training, starting_checkpoint, training_data
    from model.recipe import parse_overrides
    from model.train import Run
    from model.training.inputs import default_cache

    started_from = starting_checkpoint(first)
    data_set = open_data_sets(data)
    samples, judged = data_set.train(), None
    if hold_out_identities:
        samples, judged = held_out_split(data_set, hold_out_identities)
    usable = usable_crops(samples, data_set.name)
    console.print(_usable_summary(usable, samples), soft_wrap=True)
    if identities is not None:
        usable = select_identities(usable, identities)
    origin = started_from.metadata
    recorded = training_data(usable, data_set, hold_out_identities, origin, teacher=origin.model_id)
    run = Run(
        adaptation_recipe(origin, recorded.identities, parse_overrides(settings or [])),
        usable,
        recorded,
        out,
        initial=started_from,
        cache=cache or default_cache(),
        log_every=log_every,
        save_every=save_every,
    )
    held_out = judged_by_run(judged, data_set, recorded) if judged else None
    notes = [*data_set.notes("train"), *_notes(started_from, held_out)]
    run_training(run, held_out, resume, notes, compared=started_from)


def _usable_summary(usable: Sequence[Sample], samples: Sequence[Sample]) -> str:
    persons, used = (len({sample.pid for sample in crops}) for crops in (samples, usable))
    unused = f"; the other {persons - used} do not show how a person's looks differ between cameras"
    return (
        f"{used} of {persons} persons are used: seen by two cameras or more, or on two crops or more if cameras are "
        f"unknown{unused if used < persons else ''}"
    )


def _notes(initial: Checkpoint, held_out: ChosenSplit | None) -> list[str]:
    notes = []
    if held_out and held_out.seen:
        notes.append("it was trained on the held-out persons: these results do not generalise to other persons")
    if initial.metadata.calibration:
        notes.append("the calibration no longer holds: run `python -m model calibrate` on the result")
    return notes
