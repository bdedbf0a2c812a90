"""`python -m model evaluate`: judge a checkpoint on a data set, or features that any network made."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model.commands.common import console, show
from model.commands.splits import choose_split
from model.datasets.base import EvaluationSplit
from model.errors import DataError, ModelError
from model.evaluate import Evaluation, LabelledFeatures, Protocol, read_features, write_features
from model.evaluate import evaluate as judge


def evaluate(
    checkpoint: Annotated[Path | None, typer.Option(help="A .safetensors or .onnx checkpoint")] = None,
    data: Annotated[str | None, typer.Option(help="KIND:FOLDER that the checkpoint is judged on")] = None,
    features: Annotated[Path | None, typer.Option(help="An NPZ file with fq, fg, qp, qc, gp, gc")] = None,
    hold_out_identities: Annotated[
        int | None,
        typer.Option("--hold-out", min=1, help="Judge on so many identities held out of the training part"),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Average with the mirror image, or not [default: as the checkpoint says]"
        ),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours")] = False,
    query_expansion: Annotated[int, typer.Option(min=0, help="Widen queries by so many of what they find first")] = 0,
    alpha: Annotated[float, typer.Option(min=0, help="These weigh similarity ^ alpha")] = 3.0,
    multi_query: Annotated[bool, typer.Option(help="Ask with all crops of a person by a camera at once")] = False,
    same_camera: Annotated[
        bool, typer.Option(help="Count crops of the same camera as right answers, as if no camera were known")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Samples drawn for 95 % confidence intervals, say 1000")] = 0,
    seed: Annotated[int, typer.Option(help="Draws these samples")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write the features into this NPZ file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
) -> None:
    """Judge a checkpoint on a data set, or features that any network made."""
    notes: tuple[str, ...] = ()
    if features is not None and checkpoint is None and data is None:
        if flip is not None or export is not None:
            raise ModelError("--flip and --export need pictures: give --checkpoint FILE with --data KIND:FOLDER")
        query, gallery = read_features(features)
    elif features is None and checkpoint is not None and data is not None:
        split, query, gallery, notes = _embedded(checkpoint, data, hold_out_identities, flip)
        if export is not None:
            write_features(export, query, gallery, split)
    else:
        raise ModelError("give either --features FILE.npz, or --checkpoint FILE with --data KIND:FOLDER")
    protocol = Protocol(rerank, query_expansion, alpha, multi_query, not same_camera, bootstrap, seed)
    found = judge(query, gallery, protocol)
    found = replace(found, notes=notes + found.notes)
    if not found.metrics.queries:
        raise DataError(f"no query has a right answer in the gallery: {'; '.join(found.notes)}")
    if as_json:
        print(json.dumps(_as_json(found)))
    else:
        _print(found)


def _embedded(
    checkpoint: Path, data: str, hold_out_identities: int | None, flip: bool | None
) -> tuple[EvaluationSplit, LabelledFeatures, LabelledFeatures, tuple[str, ...]]:
    from model.evaluate import embed_split
    from model.loading import load_for_inference

    loaded = load_for_inference(checkpoint, flip)
    chosen = choose_split(data, loaded.metadata.training_data, hold_out_identities)
    notes = chosen.notes
    if chosen.seen:
        notes += ("the checkpoint has seen these identities in training; they say nothing of others",)
    return chosen.split, *embed_split(chosen.split, loaded.metadata.input, loaded.embed), notes


def _as_json(found: Evaluation) -> dict[str, object]:
    """Everything but the queries one by one; the metrics stand at the top."""
    return found.metrics.as_dict() | {
        "intervals": found.intervals,
        "verification": asdict(found.verification),
        "camera_pairs": [asdict(pair) for pair in found.camera_pairs],
        "notes": found.notes,
    }


def _print(found: Evaluation) -> None:
    show(found.metrics)
    for name, (low, high) in found.intervals.items():
        console.print(f"{name}: 95 % confidence from {100 * low:.2f} to {100 * high:.2f} %")
    verification = found.verification
    rates = ", ".join(f"{100 * value:.2f} % at FMR {100 * rate:g} %" for rate, value in verification.fnmr.items())
    console.print(
        f"verification: FNMR {rates} ({verification.same_pairs:,} pairs of one person, "
        f"{verification.different_pairs:,} of two)",
        soft_wrap=True,
    )
    if len(found.camera_pairs) > 1:
        table = Table("query camera", "gallery camera", "queries", "rank-1", "mAP (step)")
        for pair in found.camera_pairs:
            figures = (f"{100 * value:.1f} %" for value in (pair.rank1, pair.map_step))
            table.add_row(str(pair.query_camera), str(pair.gallery_camera), str(pair.queries), *figures)
        console.print(table)
    for note in found.notes:
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True)
