"""`make bench`: compares each part of Passerby with its baseline, in one run."""

import argparse
import platform
import signal
import sys

from rich.console import Console

from app.kit.cores import available_cores
from bench import beside_peers, embedding, engines, evaluation, forms, latency, serving, soak, training
from bench.index import comparisons
from bench.rows import Row, show

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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that child processes are stopped
    console = Console()
    console.print(f"{available_cores()} cores, {platform.machine()}, {arguments.rounds} rounds, medians")
    found: list[Row] = []
    for name, rows in PARTS.items():
        if arguments.only in (None, name, name.split(".")[0]):
            found += rows(arguments.rounds)
    show(found, console)


if __name__ == "__main__":
    main()
