"""Shared parts of the commands: the console, options, evaluation, and how splits and metrics are shown."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.checkpoint import Checkpoint, MeasuredResult
from model.checks import require_memory
from model.commands.splits import ChosenSplit
from model.datasets.base import EvaluationSplit
from model.evaluate import embed_split, evaluate, memory_needed
from model.figures import hundredths
from model.metrics import Metrics
from model.provenance import HasTrainingData, training_summary

console = Console(markup=False, emoji=False)
"""Prints texts as they are: names of files and of data may contain brackets."""

MAX_SEED = 2**32 - 1
"""The largest seed that all random generators take."""


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

AllOption = Annotated[
    bool,
    typer.Option("--all", help="All persons of the data, also where there is a test part or training held persons out"),
]

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


def require_memory_for(split: EvaluationSplit, rerank: bool = False) -> None:
    """Check that the memory suffices to evaluate a split. Raises ResourceError."""
    needed = memory_needed(len(split.query), len(split.gallery), rerank)
    require_memory(needed, "evaluating this data", "evaluate a part of it, or use a machine with more memory")


def split_sentence(chosen: ChosenSplit, metadata: HasTrainingData) -> str:
    """What the split is, and how it relates to the checkpoint's training data, teacher and starting checkpoint."""
    return f"{chosen.name}: {chosen.caveat}; {training_summary(metadata)}"


def show_split(chosen: ChosenSplit, metadata: HasTrainingData) -> None:
    """Print what the split is and its notes."""
    console.print(split_sentence(chosen, metadata), soft_wrap=True, highlight=False)
    show_notes(chosen.notes)


def show_notes(notes: Sequence[str]) -> None:
    """Print each note on a line."""
    for note in notes:
        console.print(Text.assemble(("note:", "yellow"), " ", note), soft_wrap=True)


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
    table.add_row(f"{metrics.queries:,}", *map(hundredths, shares.values()))
    console.print(table)
