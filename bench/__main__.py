"""`make bench`: compares each part of Passerby with its baseline, in one run."""

import argparse
import platform

from rich.console import Console

from app.kit.cores import available_cores
from bench import beside_peers, embedding, engines, evaluation, forms, latency, serving, soak, training
from bench.index import comparisons
from bench.rows import Row, show
from bench.service import exit_on_sigterm

PARTS = {
    "serving": serving.rows,
    "embedding.http": embedding.rows,
    "embedding.peers": beside_peers.rows,
    "embedding.torch": engines.rows,
    "embedding.int8": forms.rows,
    "embedding.latency": latency.rows,
    "embedding.memory": soak.rows,
    "index": comparisons.rows,
    "training": training.rows,
    "evaluation": evaluation.rows,
}


def main() -> None:
    """Run the benchmarks of all parts or of one, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over")
    parser.add_argument("--only", choices=[*PARTS, "embedding"], help="only this part, or all of `embedding`")
    arguments = parser.parse_args()
    exit_on_sigterm()
    console = Console()
    console.print(f"{available_cores()} cores, {platform.machine()}, {arguments.rounds} rounds, medians")
    table: list[Row] = []
    for name, rows in PARTS.items():
        if arguments.only in (None, name, name.split(".")[0]):
            table += rows(arguments.rounds)
    show(table, console)


if __name__ == "__main__":
    main()
