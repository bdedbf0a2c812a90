"""What several commands share: the console, the option --data, and how results are judged and shown."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.checkpoint import Checkpoint, MeasuredResult
from model.datasets.base import EvaluationSplit
from model.evaluate import evaluate_features
from model.metrics import Metrics

console = Console()

DataOption = Annotated[str, typer.Option("--data", help="KIND:FOLDER, for instance market1501:/data/Market-1501")]


def judge(checkpoint: Checkpoint, split: EvaluationSplit) -> Metrics:
    from model.evaluate import embed_split
    from model.loading import inference_of

    loaded = inference_of(checkpoint)
    return evaluate_features(*embed_split(split, loaded.metadata.input, loaded.embed))


def measured_result(metrics: Metrics, data: str, held_out: int) -> MeasuredResult:
    figures = {name: round(value, 4) for name, value in metrics.as_dict().items() if name != "unanswerable"}
    return MeasuredResult(
        data=data,
        protocol=f"{held_out} training identities held out, single query, no re-ranking",
        **figures,
    )


def show(metrics: Metrics, as_json: bool) -> None:
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
