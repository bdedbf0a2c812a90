"""The lines of the benchmark table."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    other: str
    result: str
    target: str
    met: bool


def show(rows: Iterable[Row], console: Console) -> None:
    """Print the table."""
    table = Table("what", "Passerby", "other", "ratio", "target", "met")
    for row in rows:
        table.add_row(row.what, row.ours, row.other, row.result, row.target, "yes" if row.met else "NO")
    console.print(table)
