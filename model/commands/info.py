"""`python -m model info`: what a checkpoint is."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model.commands.common import console
from model.loading import read_metadata


def info(file: Annotated[Path, typer.Argument(help="A .safetensors or .onnx checkpoint")]) -> None:
    """Tell what a checkpoint is."""
    metadata = read_metadata(file)
    table = Table(show_header=False, title=metadata.model_id)
    data, shape = metadata.training_data, metadata.input
    table.add_row("network", f"MGN ({metadata.architecture.name}) on {metadata.architecture.backbone}")
    table.add_row("embedding", f"{len(metadata.parts)} parts: {', '.join(metadata.parts)}")
    table.add_row("input", f"{shape.height} x {shape.width} pixels, {shape.interpolation}, flip averaging {shape.flip}")
    table.add_row("training data", f"{data.name}: {data.crops} crops of {data.identities} identities")
    table.add_row("terms", data.terms)
    for result in metadata.results:
        table.add_row(
            f"{result.data}",
            f"rank-1 {100 * result.rank1:.1f} %, mAP {100 * result.map_step:.1f} % (step), "
            f"{100 * result.map_trapezoid:.1f} % (trapezoid); {result.protocol}, {result.queries} queries",
        )
    table.add_row("sha256", metadata.sha256)
    console.print(table)
