"""`python -m model adapt`: a checkpoint's last stage on a few hundred confirmed crops of a site's own people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from model.checkpoint import Checkpoint, load_checkpoint
from model.commands.common import console, judge
from model.commands.splits import ChosenSplit
from model.datasets import open_data_sets
from model.datasets.base import Sample
from model.datasets.joined import hold_out_of_first
from model.datasets.selection import some_identities
from model.errors import ModelError


def adapt(
    first: Annotated[Path, typer.Option("--from", help="The .safetensors checkpoint to adapt")],
    data: Annotated[list[str], typer.Option(help="The site's confirmed crops: folder:FOLDER or manifest:FILE.csv")],
    out: Annotated[Path, typer.Option(help="The folder that the run is written into")],
    hold_out_identities: Annotated[
        int,
        typer.Option(
            "--hold-out", min=0, help="Identities of the first --data kept from training, to judge its result"
        ),
    ] = 0,
    identities: Annotated[
        int | None, typer.Option(min=8, help="Adapt with so many of the persons only, for comparisons")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe `adapt`: schedule.iterations=100")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded pictures [default: ~/.cache/passerby]")] = None,
    log_every: Annotated[int, typer.Option(min=1, help="Iterations between lines of the log")] = 10,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between saved states")] = 50,
) -> None:
    """Adapt a checkpoint to a site's own cameras with a few hundred confirmed crops.

    All its layers learn gently from the persons that two cameras have seen, with the checkpoint itself as the teacher;
    the result is the average of the weights before and after. A run that was stopped goes on with --resume.
    """
    from model.adaptation import adaptation_recipe, usable_crops
    from model.commands.running import carry_out, held_out_split, training_data
    from model.recipe import parse_changes
    from model.train import Run
    from model.training.inputs import default_cache

    if first.suffix != ".safetensors":
        raise ModelError(f"--from is {first}; training goes on from a .safetensors checkpoint alone")
    started_from = load_checkpoint(first)
    data_set, split = open_data_sets(data), None
    if hold_out_identities:
        samples, split = hold_out_of_first(data_set, hold_out_identities)
    else:
        samples = data_set.train()
    usable = usable_crops(samples, data_set.name)
    console.print(_usable_told(usable, samples), soft_wrap=True)
    if identities is not None:
        usable = some_identities(usable, identities)
    origin = started_from.metadata
    facts = training_data(usable, data_set, hold_out_identities, origin, teacher=origin.model_id)
    run = Run(
        adaptation_recipe(started_from.metadata, facts.identities, parse_changes(settings or [])),
        usable,
        facts,
        out,
        first=started_from,
        cache=cache or default_cache(),
        log_every=log_every,
        save_every=save_every,
    )
    held_out = held_out_split(split, data_set, facts) if split else None
    carry_out(run, held_out, resume, _notes(started_from, held_out))


def _usable_told(usable: Sequence[Sample], samples: Sequence[Sample]) -> str:
    persons, serving = ({sample.pid for sample in crops} for crops in (samples, usable))
    left_out = len(persons) - len(serving)
    others = f"; {left_out} others teach nothing of how a person looks to another camera" if left_out else ""
    return (
        f"{len(serving)} of {len(persons)} persons serve, seen by two cameras or more, or on two crops where the "
        f"cameras are not known{others}"
    )


def _notes(first: Checkpoint, held_out: ChosenSplit | None) -> list[str]:
    notes = []
    if held_out:
        metrics = judge(first, held_out.split)
        figures = f"rank-1 {100 * metrics.rank1:.2f} %, mAP (step) {100 * metrics.map_step:.2f} %"
        notes.append(f"before it is adapted, {first.metadata.model_id} reaches {figures} on the persons held out")
    if held_out and held_out.seen:
        notes.append("it has learned from persons that are held out now: the results say nothing of others")
    if first.metadata.calibration:
        notes.append("what its similarities mean changes: `python -m model calibrate` the result")
    return notes
