"""The command line `python -m model`: train, evaluate, export, info."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    MeasuredResult,
    TrainingData,
    load_checkpoint,
    save_checkpoint,
)
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out
from model.errors import CheckpointError, DataError, ModelError
from model.evaluate import evaluate_features, read_features
from model.loading import read_metadata
from model.metrics import Metrics

commands = typer.Typer(
    name="python -m model", help="Train MGN, judge it, and carry it where it is used.", no_args_is_help=True
)
console = Console()

DataOption = Annotated[str, typer.Option("--data", help="KIND:FOLDER, for instance market1501:/data/Market-1501")]


@commands.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, for instance model/recipes/mobile.toml")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder that the run is written into")],
    hold_out_identities: Annotated[
        int,
        typer.Option("--hold-out", min=0, help="Identities kept from training and used to judge its result"),
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out")] = False,
) -> None:
    """Train by a recipe, and judge the result on the identities held out."""
    from model.recipe import read_recipe
    from model.train import CHECKPOINT_FILE, Run
    from model.train import train as run_training

    settings = read_recipe(recipe)
    data_set = open_data_set(data)
    samples, split = data_set.train(), None
    if hold_out_identities:
        samples, split = hold_out(samples, hold_out_identities)
    facts = TrainingData(
        name=data_set.name,
        terms=data_set.terms,
        identities=len({sample.pid for sample in samples}),
        crops=len(samples),
        held_out_identities=hold_out_identities,
    )
    console.print(f"{settings.name}: {facts.crops} crops of {facts.identities} identities, into {out}")
    checkpoint = run_training(Run(settings, samples, facts, out), resume)
    if split:
        metrics = _judge(checkpoint, split)
        checkpoint = save_checkpoint(
            out / CHECKPOINT_FILE,
            checkpoint.weights,
            checkpoint.metadata.model_copy(update={"results": (_result(metrics, data_set.name, hold_out_identities),)}),
        )
        _show(metrics, as_json=False)
    console.print(f"{out / CHECKPOINT_FILE} is {checkpoint.metadata.model_id}")


@commands.command()
def evaluate(
    checkpoint: Annotated[Path | None, typer.Option(help="A .safetensors or .onnx checkpoint")] = None,
    data: Annotated[str | None, typer.Option(help="KIND:FOLDER that the checkpoint is judged on")] = None,
    features: Annotated[Path | None, typer.Option(help="An NPZ file with fq, fg, qp, qc, gp, gc")] = None,
    hold_out_identities: Annotated[
        int | None,
        typer.Option("--hold-out", min=1, help="Judge on so many identities held out of the training part"),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
) -> None:
    """Judge a checkpoint on a data set, or features that any network made."""
    if features is not None and checkpoint is None and data is None:
        query, gallery = read_features(features)
    elif features is None and checkpoint is not None and data is not None:
        from model.evaluate import embed_split
        from model.loading import load_for_inference

        loaded = load_for_inference(checkpoint)
        split = _split(data, loaded.metadata.training_data, hold_out_identities)
        query, gallery = embed_split(split, loaded.metadata.input, loaded.embed)
    else:
        raise ModelError("give either --features FILE.npz, or --checkpoint FILE with --data KIND:FOLDER")
    _show(evaluate_features(query, gallery, rerank), as_json)


@commands.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="A .safetensors checkpoint")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write, or a .safetensors file of half the size")],
    results_of: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same recipe with identities held out, to tell its results")
    ] = None,
) -> None:
    """Write a checkpoint in another form, and prove that it gives the same embeddings."""
    from model.export import export_half, export_onnx

    loaded = load_checkpoint(checkpoint)
    if results_of is not None:
        loaded = _with_results_of(read_metadata(results_of), loaded)
    cosine = export_half(loaded, out) if out.suffix == ".safetensors" else export_onnx(loaded, out)
    loaded = load_checkpoint(out) if out.suffix == ".safetensors" else loaded
    size = out.stat().st_size / 1e6
    console.print(f"{out}: {size:.1f} MB, {loaded.metadata.model_id}, lowest cosine to the checkpoint {cosine:.6f}")


@commands.command()
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


def _with_results_of(judged: CheckpointMetadata, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint trained on everything cannot be judged on what it has seen; its recipe can."""
    if judged.recipe != checkpoint.metadata.recipe:
        raise CheckpointError(f"{judged.model_id} was trained by another recipe: its results say nothing of this one")
    results = tuple(
        result.model_copy(update={"protocol": f"the same recipe trained on the others; {result.protocol}"})
        for result in judged.results
    )
    return Checkpoint(checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))


def _judge(checkpoint: Checkpoint, split: EvaluationSplit) -> Metrics:
    from model.evaluate import embed_split
    from model.loading import inference_of

    loaded = inference_of(checkpoint)
    return evaluate_features(*embed_split(split, loaded.metadata.input, loaded.embed))


def _split(data: str, trained_on: TrainingData, hold_out_identities: int | None) -> EvaluationSplit:
    """The official test part; or identities held out of the training part, as asked or as the checkpoint says."""
    data_set = open_data_set(data)
    if hold_out_identities is None and data_set.has_test():
        return data_set.test()
    held_out = hold_out_identities or trained_on.held_out_identities
    if not held_out:
        raise DataError(
            f"{data} has no test part, and no identities were held out when the checkpoint was trained; "
            "--hold-out N judges on N identities of the training part"
        )
    if trained_on.name == data_set.name and trained_on.held_out_identities < held_out:
        Console(stderr=True).print(
            "[yellow]note:[/] the checkpoint has seen these identities in training; they say nothing of others"
        )
    _, split = hold_out(data_set.train(), held_out, trained_on.hold_out_seed)
    return split


def _result(metrics: Metrics, data: str, held_out: int) -> MeasuredResult:
    figures = {name: round(value, 4) for name, value in metrics.as_dict().items() if name != "unanswerable"}
    return MeasuredResult(
        data=data,
        protocol=f"{held_out} training identities held out, single query, no re-ranking",
        **figures,
    )


def _show(metrics: Metrics, as_json: bool) -> None:
    if as_json:
        print(json.dumps(metrics.as_dict()))
        return
    table = Table("rank-1", "rank-5", "rank-10", "mAP (step)", "mAP (trapezoid)", "mINP")
    shown = (
        metrics.rank1,
        metrics.rank5,
        metrics.rank10,
        metrics.map_step,
        metrics.map_trapezoid,
        metrics.minp,
    )
    table.add_row(*(f"{100 * value:.2f} %" for value in shown))
    console.print(table)
    console.print(f"{metrics.queries} queries; {metrics.unanswerable} more have no right answer in the gallery")


def main() -> None:
    """Run a command; what its user got wrong is one sentence and exit code 2."""
    try:
        commands(standalone_mode=True)
    except ModelError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
