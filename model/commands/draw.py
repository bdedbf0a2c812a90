"""`python -m model draw`: draw synthetic crops of invented persons, as demo data."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import console
from model.errors import DataError


def draw(
    folder: Annotated[Path, typer.Argument(help="The folder to write; it gets a folder for each camera")],
    people: Annotated[int, typer.Option(min=1, max=9999, help="How many persons")] = 40,
    cameras: Annotated[int, typer.Option(min=2, help="How many cameras; each person is seen by at least two")] = 4,
    seed: Annotated[int, typer.Option(help="The random seed; another seed draws other persons")] = 0,
) -> None:
    """Draw synthetic crops of invented persons, seen by several cameras, as demo data."""
    from model.datasets.synthetic import write_synthetic

    try:
        crops = write_synthetic(folder, people, cameras, seed=seed)
    except ValueError as error:
        raise DataError(str(error)) from error
    console.print(f"{crops} crops of {people} persons, drawn into {folder}")
