"""`python -m model draw`: crops of people that nobody is, to try everything with."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import console
from model.errors import DataError


def draw(
    folder: Annotated[Path, typer.Argument(help="The folder to draw into; a folder for each camera is made in it")],
    people: Annotated[int, typer.Option(min=1, max=9999, help="How many persons")] = 40,
    cameras: Annotated[int, typer.Option(min=2, help="How many cameras; each person is seen by two or more")] = 4,
    seed: Annotated[int, typer.Option(help="Another seed draws other people")] = 0,
) -> None:
    """Draw crops of people that nobody is, seen by several cameras, to try everything with."""
    from model.datasets.synthetic import write_synthetic

    try:
        crops = write_synthetic(folder, people, cameras, seed=seed)
    except ValueError as error:
        raise DataError(str(error)) from error
    console.print(f"{crops} crops of {people} persons, drawn into {folder}")
