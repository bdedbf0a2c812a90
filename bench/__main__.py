"""`make bench`: each part of Passerby beside what it is to be compared with, in one run."""

import argparse
import platform

from rich.console import Console

from app.embedding.engine import available_cores
from bench import evaluation, serving, training
from bench.rows import Row, show

PARTS = {"serving": serving.rows, "training": training.rows, "evaluation": evaluation.rows}


def main() -> None:
    """Run the benchmarks of all parts, or of one, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    arguments = parser.parse_args()
    console = Console()
    console.print(f"{available_cores()} cores, {platform.machine()}, {arguments.rounds} rounds, medians")
    found: list[Row] = []
    for name, rows in PARTS.items():
        if arguments.only in (None, name):
            found += rows(arguments.rounds)
    show(found, console)


if __name__ == "__main__":
    main()
