"""`python -m model info`: describe a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model.checkpoint import CheckpointMetadata
from model.commands.common import console
from model.datasets.joined import first_name
from model.errors import CheckpointError
from model.figures import percent
from model.files import file_sha256
from model.loading import read_metadata
from model.provenance import relation_of_result


def info(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .safetensors, .onnx, or one that `convert` knows")],
    as_json: Annotated[bool, typer.Option("--json", help="Print its metadata as JSON only")] = False,
) -> None:
    """Describe a checkpoint."""
    if file.suffix not in (".safetensors", ".onnx"):
        _show_foreign(file)
        return
    metadata = read_metadata(file)
    if as_json:
        print(metadata.model_dump_json())
        return
    table = Table(show_header=False, title=metadata.model_id)
    for name, value in _lines(metadata):
        table.add_row(name, value)
    table.add_row("file", f"{file.stat().st_size / 1e6:.1f} MB, sha256 {file_sha256(file)}")
    console.print(table)


def _lines(metadata: CheckpointMetadata) -> list[tuple[str, str]]:
    architecture, data, input_format = metadata.architecture, metadata.training_data, metadata.input
    crops = f"{data.crops:,}" if data.crops else "an unknown number of"
    identities = data.identities or "an unknown number of"
    size = f"{input_format.height} x {input_format.width} pixels"
    lines = [
        ("network", f"MGN ({architecture.name}) on {architecture.backbone}, {architecture.pooling} pooling"),
        ("computes in", metadata.precision),
        ("embedding", f"{len(metadata.parts)} parts: {', '.join(metadata.parts)}"),
        ("input", f"{size}, {input_format.interpolation}, flip averaging {'on' if input_format.flip else 'off'}"),
        ("training data", f"{data.name}: {crops} crops of {identities} identities"),
        ("terms", data.terms),
    ]
    if data.held_out_identities:
        first = first_name(data.name)
        lines.append(("held out", f"{data.held_out_identities} identities of {first}, seed {data.hold_out_seed}"))
    if data.teacher:
        lines.append(("teacher", data.teacher))
    if data.started_from:
        initial = data.started_from_data
        trained_on = f"trained on {initial.name}, {initial.terms}" if initial else "whose data is not recorded"
        lines.append(("started from", f"{data.started_from}, {trained_on}"))
    if source := metadata.recipe.get("converted_from"):
        recipe = metadata.recipe
        lines.append(("converted from", f"{source}, {recipe.get('file')}, {len(recipe.get('dropped', ()))} dropped"))
    for result in metadata.results:
        lines.append(
            (
                f"{result.data} ({relation_of_result(data, result.data)})",
                f"rank-1 {percent(result.rank1)}, mAP {percent(result.map_step)} (step), "
                f"{percent(result.map_trapezoid)} (trapezoid); {result.protocol}, {result.queries} queries",
            )
        )
    if calibration := metadata.calibration:
        lines.append(("calibrated on", f"{calibration.data}: {calibration.fitted_identities} identities"))
        probabilities = (
            f"{percent(float(calibration.probability(similarity)))} at similarity {similarity}"
            for similarity in (0.4, 0.6, 0.8)
        )
        lines.append(("same person, at prior 1/2", ", ".join(probabilities)))
    lines.append(("sha256 of weights", metadata.sha256))
    return lines


def _show_foreign(file: Path) -> None:
    """Print the layout of another project's checkpoint, and the command that converts it. Raises CheckpointError."""
    from model.conversion.files import read_state
    from model.conversion.layouts import recognise

    layout = recognise(read_state(file))
    if layout is None:
        raise CheckpointError(f"{file} is neither a Passerby checkpoint nor an MGN in a layout that `convert` knows")
    console.print(f"{file} is an MGN of {layout.name}; convert it with", soft_wrap=True)
    console.print(f"  python -m model convert {file} --out {file.with_suffix('.safetensors')}", soft_wrap=True)
