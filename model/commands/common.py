"""Shared parts of the commands: the console, the option --data, evaluation and the table of metrics."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.checkpoint import Checkpoint, MeasuredResult
from model.commands.splits import ChosenSplit
from model.datasets.base import EvaluationSplit
from model.evaluate import embed_split, evaluate
from model.metrics import Metrics

console = Console()


def _use_threads(threads: int | None) -> int | None:
    """Limit the threads of torch, of ONNX Runtime and of processes that this one starts."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported and a session is opened
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    return threads


ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, callback=_use_threads, help="Threads to compute with on the CPU; all by default"),
]
"""Takes effect as it is parsed: commands do not use its value."""

DataOption = Annotated[str, typer.Option("--data", help="KIND:FOLDER, for instance market1501:/data/Market-1501")]

_RECORDED = ("queries", "rank1", "rank5", "rank10", "map_step", "map_trapezoid", "minp")


def evaluate_in_memory(checkpoint: Checkpoint, split: EvaluationSplit) -> Metrics:
    """The metrics of a checkpoint in memory by the usual protocol."""
    from model.loading import inference_of

    return evaluate(*embed_split(split, inference_of(checkpoint))).metrics


def measured_result(metrics: Metrics, chosen: ChosenSplit) -> MeasuredResult:
    """Metrics of the usual protocol on a part of a data set, in the form that a checkpoint stores."""
    values = {name: round(value, 4) for name, value in metrics.as_dict().items() if name in _RECORDED}
    protocol = f"{chosen.part_name} ({chosen.caveat}), single query, no re-ranking"
    return MeasuredResult(data=chosen.data, protocol=protocol, **values)


def show(metrics: Metrics) -> None:
    """Print metrics as a table."""
    shares = {
        "rank-1": metrics.rank1,
        "rank-5": metrics.rank5,
        "rank-10": metrics.rank10,
        "rank-20": metrics.rank20,
        "mAP step": metrics.map_step,
        "trapezoid": metrics.map_trapezoid,
        "mINP": metrics.minp,
    }
    table = Table("queries", *shares, title="shares in %")
    table.add_row(f"{metrics.queries:,}", *(f"{100 * value:.2f}" for value in shares.values()))
    console.print(table)
