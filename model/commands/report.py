"""`python -m model report`: a training run as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from model.checks import require_output_folder
from model.commands.common import console, require_memory_for, show_split
from model.commands.splits import choose_split
from model.errors import ModelError


def report(
    run: Annotated[Path, typer.Argument(help="The folder that `train --out` wrote")],
    data: Annotated[
        str | None, typer.Option(help="KIND:FOLDER for the CMC curve and ranked examples [default: leave these out]")
    ] = None,
    hold_out_identities: Annotated[
        int | None, typer.Option("--hold-out", min=1, help="Evaluate on N identities held out of the training part")
    ] = None,
) -> None:
    """Write report.html into a run's folder: curves, results, recipe, and with --data ranked examples.

    An unfinished run has curves only.
    """
    from model.checkpoint import load_checkpoint
    from model.report import EvaluatedSplit, write_report
    from model.train import CHECKPOINT_FILE

    if hold_out_identities is not None and data is None:
        raise ModelError("--hold-out N needs --data KIND:FOLDER, from which the identities are held out")
    require_output_folder("RUN", run)
    path = run / CHECKPOINT_FILE
    checkpoint = load_checkpoint(path) if path.exists() else None
    evaluated = None
    if data is not None:
        if checkpoint is None:
            raise ModelError(f"there is no {path} yet, so nothing can be evaluated on --data {data}")
        chosen = choose_split(data, checkpoint.metadata.training_data, hold_out_identities)
        require_memory_for(chosen.split)
        show_split(chosen, checkpoint.metadata)
        evaluated = EvaluatedSplit(chosen.name, chosen.split, caveat=chosen.caveat)
    console.print(f"open {write_report(run, checkpoint, evaluated)}", soft_wrap=True)
