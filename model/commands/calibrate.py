"""`python -m model calibrate`: fit the map from a checkpoint's similarities to probabilities."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model.calibrate import CalibrationResult, Kind, check_pairs
from model.calibrate import calibrate as fit
from model.checks import require_disk, require_output_file
from model.commands.common import (
    MAX_SEED,
    AllOption,
    DataOption,
    ThreadsOption,
    console,
    require_memory_for,
    show_notes,
    show_split,
)
from model.commands.splits import check_part_options, choose_split
from model.errors import DataError, ModelError
from model.evaluate import embed_split
from model.figures import percent

_PRIORS = (0.5, 0.01)
_SIMILARITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_DIAGRAM_SUFFIXES = (".svg", ".png", ".pdf")


def calibrate(
    checkpoint: Annotated[Path, typer.Option(help="A .safetensors or .onnx checkpoint")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The calibrated checkpoint; may be the same file")],
    hold_out_identities: Annotated[
        int | None,
        typer.Option("--hold-out", min=2, help="Calibrate on N identities held out of the training part"),
    ] = None,
    everyone: AllOption = False,
    kind: Annotated[Kind, typer.Option(help="isotonic (any increasing map) or logistic (two parameters)")] = "isotonic",
    diagram: Annotated[
        Path | None,
        typer.Option(help="The diagram, .svg, .png or .pdf [default: --out with the suffix .reliability.svg]"),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the split into fitted and evaluated identities")
    ] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Fit the probability that two crops show the same person, as a function of their similarity.

    Fits the map on half of the identities and evaluates it on the other half, on pairs of crops from different cameras.
    Stores the map in the checkpoint's metadata; the weights do not change.
    """
    from model.loading import load_for_inference
    from model.rewriting import rewrite_metadata
    from model.visualize.reliability import draw_reliability

    check_part_options(everyone, hold_out_identities)
    diagram_file = diagram or out.with_suffix(".reliability.svg")
    if diagram_file.suffix not in _DIAGRAM_SUFFIXES:
        raise ModelError(f"--diagram is {diagram_file}; its name must end in one of {', '.join(_DIAGRAM_SUFFIXES)}")
    if out.suffix != checkpoint.suffix:
        raise ModelError(f"--out is {out}; it must end in {checkpoint.suffix}, as --checkpoint does")
    require_output_file("--out", out)
    require_output_file("--diagram", diagram_file)
    loaded = load_for_inference(checkpoint)
    require_disk(out.parent, checkpoint.stat().st_size, "the calibrated checkpoint", "choose another --out")
    chosen = choose_split(data, loaded.metadata.training_data, hold_out_identities, everyone)
    if chosen.seen:
        which = "some of these identities" if chosen.partly_seen else "these identities"
        raise DataError(
            f"the checkpoint was trained on {which}, so the probabilities would be too high: calibrate on identities "
            "that its training held out, or on other data"
        )
    require_memory_for(chosen.split)
    notes = check_pairs(chosen.split, chosen.name, seed)
    show_split(chosen, loaded.metadata)
    show_notes(notes)
    query, gallery = embed_split(chosen.split, loaded)
    result = fit(query, gallery, chosen.name, kind, seed)
    metadata = loaded.metadata.model_copy(update={"calibration": result.calibration})
    rewrite_metadata(checkpoint, out, metadata)
    draw_reliability(result, diagram_file)
    _show(result)
    console.print(
        f"{out} is {metadata.model_id}, calibrated; its reliability diagram is {diagram_file}", soft_wrap=True
    )


def _show(result: CalibrationResult) -> None:
    calibration = result.calibration
    console.print(
        f"fitted on {calibration.fitted_identities} identities of {calibration.data}: {calibration.same_pairs:,} "
        f"same-person pairs and {calibration.different_pairs:,} different-person pairs, from different cameras"
    )
    console.print(
        f"expected calibration error on {calibration.judged_identities} other identities: "
        f"{percent(result.balanced.expected_calibration_error, 2)} if half of the pairs were same-person pairs, "
        f"{percent(result.natural.expected_calibration_error, 2)} at their true share of "
        f"{100 * result.pairs.natural_prior:.2g} %"
    )
    table = Table("similarity", *(f"if 1 pair in {round(1 / prior)} is a same-person pair" for prior in _PRIORS))
    for similarity in _SIMILARITIES:
        shares = (float(calibration.probability(similarity, prior)) for prior in _PRIORS)
        table.add_row(f"{similarity:.1f}", *map(percent, shares))
    console.print(table)
