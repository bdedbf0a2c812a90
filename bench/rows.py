"""The lines of the benchmark table."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.rounds import median_ratio, ratios


@dataclass(frozen=True)
class Row:
    """One line of the table; without a target, it is met."""

    what: str
    ours: str
    baseline: str = ""
    ratio: str = ""
    target: str = ""
    met: bool = True


def speeds_row(
    what: str, ours: Sequence[float], our_note: str, baseline: Sequence[float], baseline_note: str, min_ratio: float
) -> Row:
    """Crops a second of two sides, a value a round: both medians, and the median and range of the rounds' ratios."""
    ratio, by_round = median_ratio(ours, baseline), ratios(ours, baseline)
    return Row(
        what,
        f"{_speed(ours)}{our_note}",
        f"{_speed(baseline)}{baseline_note}",
        f"{ratio:.2f}, rounds {min(by_round):.2f} to {max(by_round):.2f}",
        f"{min_ratio} or more",
        ratio >= min_ratio,
    )


def _speed(speeds: Sequence[float]) -> str:
    median = statistics.median(speeds)
    return f"{median:.0f} crops/s" if median >= 100 else f"{median:.1f} crops/s"


def spread(values: Sequence[float], percentiles: Sequence[int], value_format: str) -> str:
    """Percentiles as text, such as `p50 3 ms, max 9 ms` for (50, 100) in the format `{:.0f} ms`."""
    if not values:
        return "none"
    names = ["max" if percentile == 100 else f"p{percentile}" for percentile in percentiles]
    figures = map(value_format.format, np.percentile(values, percentiles))
    return ", ".join(f"{name} {figure}" for name, figure in zip(names, figures, strict=True))


def show(rows: Iterable[Row], console: Console) -> None:
    """Print the table."""
    table = Table("what", "Passerby", "other", "ratio", "target", "met")
    for row in rows:
        table.add_row(row.what, row.ours, row.baseline, row.ratio, row.target, "yes" if row.met else "NO")
    console.print(table)
