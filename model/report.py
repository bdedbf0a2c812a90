"""The report of a training run as one HTML file: curves, results, ranked examples, recipe."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint import Checkpoint
from model.datasets.base import EvaluationSplit
from model.errors import ModelError
from model.evaluate import LabelledFeatures, embed_split
from model.loading import inference_of
from model.metrics import QueryScores
from model.provenance import relation_of_result
from model.training.run_log import LOG_FILE
from model.visualize.charts import Curve, cmc_figure, losses_figure, rate_figure, schedule_figure, shares_figure
from model.visualize.folder import BRANCHES
from model.visualize.pages import write_page
from model.visualize.ranks import Order, Ranking, choose_queries
from model.visualize.sheets import build_sheets
from model.visualize.style import svg_uri

REPORT_FILE = "report.html"

_CMC_RANKS = 20
_EXAMPLES = 5
_RANKS_SHOWN = 10
_VALIDATION_TITLE = "On the held-out identities"


@dataclass(frozen=True)
class EvaluatedSplit:
    """The split that the checkpoint is evaluated on: name, crops, and their features if already computed.

    caveat: how far results on it generalise.
    """

    name: str
    split: EvaluationSplit
    features: tuple[LabelledFeatures, LabelledFeatures] | None = None
    caveat: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure as a `data:` URI, with its title as the text alternative."""

    title: str
    uri: str


def write_report(folder: Path, checkpoint: Checkpoint | None = None, evaluated: EvaluatedSplit | None = None) -> Path:
    """Write `report.html` into a run's folder and return its path.

    checkpoint: the run's result; None for an unfinished run, whose report has only curves. evaluated: the split for the
    CMC curve and the ranked examples; needs the checkpoint, which computes missing features.

    Raises ModelError if the folder has no log, or for a split without a checkpoint; DataError for features that do not
    belong to the crops, and for pictures that cannot be read.
    """
    log = read_log(folder / LOG_FILE)
    if evaluated and not checkpoint:
        raise ModelError(
            f"{folder} holds no checkpoint yet, so nothing can be evaluated: leave --data out until it does"
        )
    ranking = _ranking(checkpoint, evaluated) if checkpoint and evaluated else None
    metadata = checkpoint.metadata if checkpoint else None
    values = {
        "run": folder.resolve().name,
        "metadata": metadata,
        "relations": [relation_of_result(metadata.training_data, result.data) for result in metadata.results]
        if metadata
        else (),
        "charts": _charts(log),
        "recipe": _sections(metadata.recipe) if metadata else {},
        "data": evaluated.name if evaluated else None,
        "caveat": evaluated.caveat if evaluated else "",
        "branches": BRANCHES if ranking else (),
        **_examples(ranking, checkpoint),
    }
    path = folder / REPORT_FILE
    write_page(path, "report.html.j2", values)
    return path


def read_log(path: Path) -> list[Mapping[str, Any]]:
    """The lines of a run's log in order, without a truncated last line. Raises ModelError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the log of a training run at {path}: {error}") from error
    log: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise ModelError(f"line {number} of {path} is not JSON: {line[:60]!r}") from None
        if not _is_line(entry):
            raise ModelError(f"line {number} of {path} is not a line of a training log: {line[:60]!r}")
        log.append(entry)
    return log


def _is_line(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("iteration"), int)
        and isinstance(entry.get("validation", {}), dict)
    )


def curves_of(log: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """A log's curves by name, without values that are not finite numbers."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for entry in log:
        for name, value in entry.items():
            if name != "iteration" and isinstance(value, int | float) and math.isfinite(value):
                iterations, values = curves.setdefault(name, ([], []))
                iterations.append(entry["iteration"])
                values.append(float(value))
    return dict(curves)


def _charts(log: Sequence[Mapping[str, Any]]) -> list[Chart]:
    training = curves_of(log)
    validation = curves_of(
        [{"iteration": entry["iteration"], **entry["validation"]} for entry in log if entry.get("validation")]
    )
    rate, speed = training.pop("learning_rate", None), training.pop("crops_per_second", None)
    charts = []
    if training:
        charts.append(("Losses", losses_figure("Losses", _labelled(training))))
    if validation:
        charts.append((_VALIDATION_TITLE, shares_figure(_VALIDATION_TITLE, _labelled(validation))))
    if rate:
        charts.append(("Learning rate", schedule_figure("Learning rate", rate)))
    if speed:
        charts.append(("Crops per second", rate_figure("Crops per second", speed)))
    return [Chart(title, svg_uri(chart)) for title, chart in charts]


def _labelled(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    labels = {"map_step": "mAP (step)", "map_trapezoid": "mAP (trapezoid)", "rank1": "rank-1"}
    return {labels.get(name, name.replace("_", " ")): curve for name, curve in curves.items()}


def _ranking(checkpoint: Checkpoint, evaluated: EvaluatedSplit) -> Ranking:
    features = evaluated.features
    if features is None:
        features = embed_split(evaluated.split, inference_of(checkpoint))
    return Ranking(evaluated.split, *features)


def _examples(ranking: Ranking | None, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The CMC curve, and sheets of the queries with the worst and the best results."""
    nothing: dict[str, Any] = {"cmc": None, "worst": (), "best": ()}
    if ranking is None:
        return nothing
    scores = ranking.scores()
    if np.isnan(scores.first).all():
        return nothing
    best = _example_queries(ranking, scores, "best")
    worst = [query for query in _example_queries(ranking, scores, "worst") if query not in best]
    sheets = build_sheets([ranking.ranked(query, _RANKS_SHOWN) for query in (*worst, *best)], checkpoint)
    ranks = min(_CMC_RANKS, len(ranking.gallery.pids))
    return {
        "cmc": Chart("CMC curve", svg_uri(cmc_figure(scores.cmc(ranks)))),
        "worst": sheets[: len(worst)],
        "best": sheets[len(worst) :],
    }


def _example_queries(ranking: Ranking, scores: QueryScores, order: Order) -> list[int]:
    """The worst or the best queries of different persons."""
    of_person: dict[int, int] = {}
    for query in choose_queries(scores, order, len(ranking.query.pids)):
        of_person.setdefault(int(ranking.query.pids[query]), query)
    return list(of_person.values())[:_EXAMPLES]


def _sections(recipe: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A recipe as tables by section; values outside any section come first."""
    sections: dict[str, dict[str, str]] = {}
    plain = {name: _text(value) for name, value in recipe.items() if not isinstance(value, Mapping)}
    if plain:
        sections["recipe"] = plain
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            sections[name] = {key: _text(item) for key, item in value.items()}
    return sections


def _text(value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
