"""`python -m model evaluate`: evaluate a checkpoint on data sets, or the features of any network."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from model.checkpoint import CheckpointMetadata
from model.commands.common import ThreadsOption, console, measured_result, show
from model.commands.places import (
    PlaceResult,
    evaluate_place,
    place_sentence,
    require_answers,
    show_intervals,
    show_notes,
    show_places,
)
from model.commands.splits import choose_split
from model.errors import ModelError
from model.evaluate import Evaluation, Protocol, embed_split, read_features, write_features
from model.evaluate import evaluate as evaluate_labelled
from model.rewriting import rewrite_metadata


def evaluate(
    checkpoint: Annotated[Path | None, typer.Option(help="A .safetensors or .onnx checkpoint")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="KIND:FOLDER to evaluate the checkpoint on; several give a table")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="An NPZ file with fq, fg, qp, qc, gp, gc")] = None,
    hold_out_identities: Annotated[
        int | None,
        typer.Option(
            "--hold-out",
            min=1,
            help="Evaluate on N identities held out of the training part [default: the test part, or the identities "
            "that training held out, or all persons]",
        ),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirror image or not [default: as the checkpoint says]"),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours")] = False,
    query_expansion: Annotated[int, typer.Option(min=0, help="Expand each query by its N nearest gallery crops")] = 0,
    alpha: Annotated[float, typer.Option(min=0, help="Query expansion weights: similarity ^ alpha")] = 3.0,
    multi_query: Annotated[
        bool, typer.Option(help="Average all crops of a person from a camera into one query")
    ] = False,
    same_camera: Annotated[
        bool, typer.Option(help="Count crops from the same camera as right answers, as if cameras were unknown")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap samples for 95 % confidence intervals; 0: none")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap samples")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write the features into this NPZ file")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Store the results in the checkpoint, replacing the old ones")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only")] = False,
    threads: ThreadsOption = None,
) -> None:
    """Evaluate a checkpoint on data sets, or the features of any network.

    Uses the official test part of each data set; without one, the persons that training held out; for a data set that
    was not trained on, all persons seen by two cameras.
    """
    protocol = Protocol(rerank, query_expansion, alpha, multi_query, not same_camera, bootstrap, seed)
    if features is not None and checkpoint is None and not data:
        if flip is not None or export is not None or record:
            raise ModelError("--flip, --export and --record need a checkpoint: --checkpoint FILE --data KIND:FOLDER")
        evaluation = require_answers(evaluate_labelled(*read_features(features), protocol))
        _print(evaluation, evaluation.notes, as_json)
        return
    if features is not None or checkpoint is None or not data:
        raise ModelError("give either --features FILE.npz, or --checkpoint FILE with --data KIND:FOLDER")
    if export is not None and len(data) > 1:
        raise ModelError(f"--export writes the features of one data set, and {len(data)} are given: run it for each")
    if record and (flip is not None or query_expansion or multi_query or same_camera):
        raise ModelError(
            "--record stores results of the usual protocol: leave --flip, --query-expansion, --multi-query and "
            "--same-camera out"
        )
    metadata, places = _evaluated(checkpoint, data, hold_out_identities, flip, protocol, export)
    if record:
        _record(checkpoint, metadata, places)
    if len(places) > 1:
        if as_json:
            print(json.dumps([_place_as_json(place, metadata) for place in places]))
        else:
            show_places(places, metadata)
        return
    (place,) = places
    evaluation = place.reranked or place.evaluation
    notes = (*place.chosen.notes, place_sentence(place.chosen, metadata), *evaluation.notes)
    _print(evaluation, notes, as_json)


def _evaluated(
    checkpoint: Path,
    data: list[str],
    hold_out_identities: int | None,
    flip: bool | None,
    protocol: Protocol,
    export: Path | None,
) -> tuple[CheckpointMetadata, list[PlaceResult]]:
    from model.loading import load_for_inference

    loaded = load_for_inference(checkpoint, flip)
    # All splits are read before the first is embedded, so that a mistake in the last is reported at once.
    splits = [choose_split(name, loaded.metadata.training_data, hold_out_identities) for name in data]
    places = []
    for chosen in splits:
        features = embed_split(chosen.split, loaded)
        if export is not None:
            write_features(export, *features, chosen.split)
        places.append(evaluate_place(chosen, features, protocol))
    return loaded.metadata, places


def _record(checkpoint: Path, metadata: CheckpointMetadata, places: list[PlaceResult]) -> None:
    for place in places:
        if place.chosen.seen:
            raise ModelError(f"--record stores no result on {place.chosen.name}: {place.chosen.caveat}")
    results = tuple(measured_result(place.evaluation.metrics, place.chosen) for place in places)
    rewrite_metadata(checkpoint, checkpoint, metadata.model_copy(update={"results": results}))


def _place_as_json(place: PlaceResult, metadata: CheckpointMetadata) -> dict[str, Any]:
    """The evaluated data, its relation to the training data, the metrics, and the metrics with re-ranking."""
    chosen = place.chosen
    described = {
        "data": chosen.data,
        "part": chosen.part_name,
        "trained_on_this_place": str(chosen.relation),
        "gallery_crops": len(chosen.split.gallery),
    }
    notes = (*chosen.notes, place_sentence(chosen, metadata), *place.evaluation.notes)
    reranked = {"reranked": place.reranked.metrics.as_dict()} if place.reranked else {}
    return described | _as_json(place.evaluation, notes) | reranked


def _as_json(evaluation: Evaluation, notes: tuple[str, ...]) -> dict[str, Any]:
    """Everything but the scores of single queries; the metrics are at the top level."""
    return evaluation.metrics.as_dict() | {
        "intervals": evaluation.intervals,
        "verification": asdict(evaluation.verification),
        "camera_pairs": [asdict(pair) for pair in evaluation.camera_pairs],
        "notes": notes,
    }


def _print(evaluation: Evaluation, notes: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(evaluation, notes)))
        return
    show(evaluation.metrics)
    show_intervals(evaluation)
    verification = evaluation.verification
    rates = ", ".join(f"{100 * value:.2f} % at FMR {100 * rate:g} %" for rate, value in verification.fnmr.items())
    console.print(
        f"verification: FNMR {rates} ({verification.same_pairs:,} same-person pairs, "
        f"{verification.different_pairs:,} different-person pairs)",
        soft_wrap=True,
    )
    if len(evaluation.camera_pairs) > 1:
        table = Table("query camera", "gallery camera", "queries", "rank-1", "mAP (step)")
        for pair in evaluation.camera_pairs:
            figures = (f"{100 * value:.1f} %" for value in (pair.rank1, pair.map_step))
            table.add_row(str(pair.query_camera), str(pair.gallery_camera), str(pair.queries), *figures)
        console.print(table)
    show_notes(notes)
