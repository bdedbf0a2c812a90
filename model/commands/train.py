"""`python -m model train`: train by a recipe, and judge the result on identities held out."""

from pathlib import Path
from typing import Annotated

import typer

from model.checkpoint import TrainingData, save_checkpoint
from model.commands.common import DataOption, console, judge, measured_result, show
from model.datasets import open_data_set
from model.datasets.base import hold_out


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, for instance model/recipes/mobile.toml")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder that the run is written into")],
    hold_out_identities: Annotated[
        int,
        typer.Option("--hold-out", min=0, help="Identities kept from training and used to judge its result"),
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out")] = False,
) -> None:
    """Train by a recipe, and judge the result on the identities held out."""
    from model.recipe import read_recipe
    from model.train import CHECKPOINT_FILE, Run
    from model.train import train as run_training

    settings = read_recipe(recipe)
    data_set = open_data_set(data)
    samples, split = data_set.train(), None
    if hold_out_identities:
        samples, split = hold_out(samples, hold_out_identities)
    facts = TrainingData(
        name=data_set.name,
        terms=data_set.terms,
        identities=len({sample.pid for sample in samples}),
        crops=len(samples),
        held_out_identities=hold_out_identities,
    )
    console.print(f"{settings.name}: {facts.crops} crops of {facts.identities} identities, into {out}")
    checkpoint = run_training(Run(settings, samples, facts, out), resume)
    if split:
        metrics = judge(checkpoint, split)
        checkpoint = save_checkpoint(
            out / CHECKPOINT_FILE,
            checkpoint.weights,
            checkpoint.metadata.model_copy(update={"results": (measured_result(metrics, data_set.name, hold_out_identities),)}),
        )
        show(metrics, as_json=False)
    console.print(f"{out / CHECKPOINT_FILE} is {checkpoint.metadata.model_id}")
