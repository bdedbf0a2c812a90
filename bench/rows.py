"""The lines of the benchmark table."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.rounds import median_ratio


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    other: str
    result: str
    target: str
    met: bool


def speeds_row(
    what: str, ours: Sequence[float], our_note: str, other: Sequence[float], other_note: str, least: float
) -> Row:
    """Crops a second of two sides, round by round: medians, the median of the rounds' ratios, and how far they lie.

    least: the ratio wanted.
    """
    ratios = [one / another for one, another in zip(ours, other, strict=True)]
    ratio = median_ratio(ours, other)
    return Row(
        what,
        f"{_speed(ours)}{our_note}",
        f"{_speed(other)}{other_note}",
        f"{ratio:.2f}, rounds {min(ratios):.2f} to {max(ratios):.2f}",
        f"{least} or more",
        ratio >= least,
    )


def _speed(found: Sequence[float]) -> str:
    median = statistics.median(found)
    return f"{median:.0f} crops/s" if median >= 100 else f"{median:.1f} crops/s"


def show(rows: Iterable[Row], console: Console) -> None:
    """Print the table."""
    table = Table("what", "Passerby", "other", "ratio", "target", "met")
    for row in rows:
        table.add_row(row.what, row.ours, row.other, row.result, row.target, "yes" if row.met else "NO")
    console.print(table)
