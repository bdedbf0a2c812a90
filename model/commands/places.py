"""Evaluation of a checkpoint on several data sets: a table, and how each set relates to the training data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.table import Table

from model.checkpoint import CheckpointMetadata
from model.commands.common import console, show_notes, split_sentence
from model.commands.splits import ChosenSplit
from model.evaluate import Evaluation, LabelledFeatures, Protocol, evaluate
from model.figures import hundredths


@dataclass(frozen=True)
class PlaceResult:
    """The results of a checkpoint on a part of a data set. reranked: the results with re-ranking, if requested."""

    chosen: ChosenSplit
    evaluation: Evaluation
    reranked: Evaluation | None = None


def evaluate_place(
    chosen: ChosenSplit, features: tuple[LabelledFeatures, LabelledFeatures], protocol: Protocol | None = None
) -> PlaceResult:
    """Evaluate the features of a split's queries and gallery without and, if the protocol says so, with re-ranking.

    protocol: None is the usual protocol.
    """
    protocol = protocol or Protocol()
    plain = evaluate(*features, replace(protocol, rerank=False))
    return PlaceResult(chosen, plain, evaluate(*features, protocol) if protocol.rerank else None)


def show_places(places: Sequence[PlaceResult], metadata: CheckpointMetadata) -> None:
    """Print the table, then each data set's relation to the training data, confidence intervals and notes."""
    table = Table(title="shares in %", box=SIMPLE_HEAD, padding=0)
    table.add_column("data set and split", overflow="fold")
    table.add_column("trained on this place?", max_width=12)
    # These widths fit into a terminal of 80 columns.
    columns = {"queries": 7, "gallery crops": 7, "rank-1": 6, "mAP step": 6, "mAP trapezoid": 9, "mINP": 6}
    for name, width in columns.items():
        table.add_column(name, justify="right", width=width)
    for place in places:
        counts = (f"{count:,}" for count in (place.evaluation.metrics.queries, len(place.chosen.split.gallery)))
        table.add_row(place.chosen.short_name, str(place.chosen.relation), *counts, *_shares(place.evaluation))
        if place.reranked:
            table.add_row("re-ranked", "", "", "", *_shares(place.reranked))
    console.print(table)
    for place in places:
        console.print(split_sentence(place.chosen, metadata), soft_wrap=True, highlight=False)
        show_intervals(place.evaluation)
        show_notes((*place.chosen.notes, *place.evaluation.notes))


def show_intervals(evaluation: Evaluation) -> None:
    """Print the confidence intervals, if there are any."""
    for name, (low, high) in evaluation.intervals.items():
        console.print(f"{name}: 95 % confidence from {hundredths(low)} to {hundredths(high)} %")


def _shares(evaluation: Evaluation) -> list[str]:
    metrics = evaluation.metrics
    shares = (metrics.rank1, metrics.map_step, metrics.map_trapezoid, metrics.minp)
    return [hundredths(share) for share in shares]
