"""`python -m model evaluate`: evaluate a checkpoint on data sets, or the features of any network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from model.architecture import EMBEDDING_DIM
from model.checkpoint import CheckpointMetadata
from model.checks import require_disk, require_memory, require_output_file
from model.commands.common import (
    MAX_SEED,
    AllOption,
    ThreadsOption,
    console,
    measured_result,
    require_memory_for,
    show,
    show_notes,
    split_sentence,
)
from model.commands.places import PlaceResult, evaluate_place, show_intervals, show_places
from model.commands.splits import ChosenSplit, check_part_options, choose_split
from model.errors import ModelError
from model.evaluate import Evaluation, Protocol, embed_split, memory_needed, read_features, write_features
from model.evaluate import evaluate as evaluate_labelled
from model.figures import percent, to_json
from model.rewriting import rewrite_metadata
from model.splits import require_answers


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
    everyone: AllOption = False,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirror image or not [default: as the checkpoint says]"),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours")] = False,
    query_expansion: Annotated[int, typer.Option(min=0, help="Expand each query by its N nearest gallery crops")] = 0,
    alpha: Annotated[float, typer.Option(min=0, max=100, help="Query expansion weights: similarity ^ alpha")] = 3.0,
    multi_query: Annotated[
        bool, typer.Option(help="Average all crops of a person from a camera into one query")
    ] = False,
    same_camera: Annotated[
        bool, typer.Option(help="Count crops from the same camera as right answers, as if cameras were unknown")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap samples for 95 % confidence intervals; 0: none")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap samples")] = 0,
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
    check_part_options(everyone, hold_out_identities)
    protocol = Protocol(rerank, query_expansion, alpha, multi_query, not same_camera, bootstrap, seed)
    if features is not None and checkpoint is None and not data:
        if flip is not None or export is not None or record:
            raise ModelError("--flip, --export and --record need a checkpoint: --checkpoint FILE --data KIND:FOLDER")
        evaluation = _evaluated_features(features, protocol)
        notes = (*evaluation.notes, *evaluation.verification.notes)
        if as_json:
            print(to_json(_as_json(evaluation, notes)))
        else:
            _print(evaluation, notes)
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
    from model.loading import load_for_inference

    loaded = load_for_inference(checkpoint, flip)
    metadata = loaded.metadata
    # All splits are read before the first is embedded, so that a mistake in the last is reported at once.
    splits = [choose_split(name, metadata.training_data, hold_out_identities, everyone, same_camera) for name in data]
    _check(splits, protocol, export, checkpoint if record else None)
    places = []
    for chosen in splits:
        embedded = embed_split(chosen.split, loaded)
        if export is not None:
            write_features(export, *embedded, chosen.split)
        places.append(evaluate_place(chosen, embedded, protocol))
    if record:
        _record(checkpoint, metadata, places)
    if as_json:
        print(to_json(_places_as_json(places, metadata)))
    elif len(places) > 1:
        show_places(places, metadata)
    else:
        (place,) = places
        evaluation = place.reranked or place.evaluation
        _print(evaluation, _notes(place, metadata, evaluation))


def _evaluated_features(path: Path, protocol: Protocol) -> Evaluation:
    query, gallery = read_features(path)
    asked, seen = (list(zip(side.pids.tolist(), side.cameras.tolist(), strict=True)) for side in (query, gallery))
    require_answers(asked, seen, str(path), not protocol.cameras)
    dimensions = query.features.shape[1]
    needed = memory_needed(len(query.pids), len(gallery.pids), protocol.rerank, dimensions)
    require_memory(needed, "evaluating these features", "evaluate a part of them")
    return evaluate_labelled(query, gallery, protocol)


def _check(splits: list[ChosenSplit], protocol: Protocol, export: Path | None, recorded_in: Path | None) -> None:
    """Raise ModelError, before anything is embedded, for what cannot be evaluated, stored or written."""
    for chosen in splits:
        if recorded_in is not None and chosen.seen:
            raise ModelError(f"--record stores no result on {chosen.name}: {chosen.caveat}")
        require_memory_for(chosen.split, protocol.rerank)
    if recorded_in is not None:
        require_output_file("--checkpoint", recorded_in)
    if export is not None:
        require_output_file("--export", export)
        crops = sum(len(chosen.split.query) + len(chosen.split.gallery) for chosen in splits)
        require_disk(export.parent, 2 * EMBEDDING_DIM * crops, "the file of features", "choose another --export")


def _record(checkpoint: Path, metadata: CheckpointMetadata, places: list[PlaceResult]) -> None:
    results = tuple(measured_result(place.evaluation.metrics, place.chosen) for place in places)
    rewrite_metadata(checkpoint, checkpoint, metadata.model_copy(update={"results": results}))


def _place_as_json(place: PlaceResult, metadata: CheckpointMetadata, evaluation: Evaluation) -> dict[str, Any]:
    """The evaluated data, its relation to the training data, and an evaluation of the place."""
    chosen = place.chosen
    described = {
        "data": chosen.data,
        "part": chosen.part_name,
        "trained_on_this_place": str(chosen.relation),
        "gallery_crops": len(chosen.split.gallery),
    }
    return described | _as_json(evaluation, _notes(place, metadata, evaluation))


def _places_as_json(places: list[PlaceResult], metadata: CheckpointMetadata) -> Any:
    """A list, with the metrics of re-ranking next to the plain ones; for a single place, one of the two."""
    if len(places) == 1:
        return _place_as_json(places[0], metadata, places[0].reranked or places[0].evaluation)
    return [
        _place_as_json(place, metadata, place.evaluation)
        | ({"reranked": place.reranked.metrics.as_dict()} if place.reranked else {})
        for place in places
    ]


def _notes(place: PlaceResult, metadata: CheckpointMetadata, evaluation: Evaluation) -> tuple[str, ...]:
    sentence = split_sentence(place.chosen, metadata)
    return (*place.chosen.notes, sentence, *evaluation.notes, *evaluation.verification.notes)


def _as_json(evaluation: Evaluation, notes: tuple[str, ...]) -> dict[str, Any]:
    """Everything but the scores of single queries; the metrics are at the top level."""
    return evaluation.metrics.as_dict() | {
        "intervals": evaluation.intervals,
        "verification": asdict(evaluation.verification),
        "camera_pairs": [asdict(pair) for pair in evaluation.camera_pairs],
        "notes": notes,
    }


def _print(evaluation: Evaluation, notes: tuple[str, ...]) -> None:
    show(evaluation.metrics)
    show_intervals(evaluation)
    verification = evaluation.verification
    rates = ", ".join(f"{percent(value, 2)} at FMR {100 * rate:g} %" for rate, value in verification.fnmr.items())
    console.print(
        f"verification: FNMR {rates} ({verification.same_pairs:,} same-person pairs, "
        f"{verification.different_pairs:,} different-person pairs)",
        soft_wrap=True,
    )
    if len(evaluation.camera_pairs) > 1:
        table = Table("query camera", "gallery camera", "queries", "rank-1", "mAP (step)")
        for pair in evaluation.camera_pairs:
            figures = (percent(value) for value in (pair.rank1, pair.map_step))
            table.add_row(str(pair.query_camera), str(pair.gallery_camera), str(pair.queries), *figures)
        console.print(table)
    show_notes(notes)
