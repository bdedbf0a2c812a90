"""`python -m model recipes`: the recipes that ship with Passerby."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import console
from model.recipe import recipe_path, recipe_summary, shipped_recipes


def recipes(
    recipe: Annotated[str | None, typer.Argument(help="The recipe to print; without one, all are listed")] = None,
) -> None:
    """List the recipes that ship with Passerby, or print one, as a start for your own."""
    if recipe is not None:
        print(recipe_path(Path(recipe)).read_text(encoding="utf-8"), end="")
        return
    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, path in shipped.items():
        console.print(f"{name:{width}}  {recipe_summary(path)}", markup=False, highlight=False, soft_wrap=True)
