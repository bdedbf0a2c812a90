"""`python -m bench.replicas --minutes 5`: whether two services on one PostgreSQL agree under load."""

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.pictures import Pictures
from bench.postgresql import postgresql
from bench.replica_visitors import FOUND_WITHIN, Ledger, visit
from bench.service import service

_SHOWN = 20


def replicas(minutes: float, seed: int) -> Ledger:
    """What visitors of two services with the bundled checkpoint found."""
    with tempfile.TemporaryDirectory(prefix="passerby-") as name, postgresql(Path(name)) as url:
        folder = Path(name)
        settings = {"PASSERBY_DATABASE_URL": url, "PASSERBY_IMAGES_URL": (folder / "images").as_uri()}
        with service(folder / "one", settings=settings) as one, service(folder / "two", settings=settings) as two:
            return visit([one.port, two.port], Pictures(), 60 * minutes, seed)


def _table(ledger: Ledger) -> Table:
    table = Table("two services on one PostgreSQL", "")
    table.add_row("crops kept; deleted; posted to both at once", _counts(ledger))
    table.add_row("searches", f"{ledger.searches:,}")
    answered, sent = np.array(ledger.delays).T if ledger.delays else np.zeros((2, 1))
    table.add_row("seconds until the other's first answer that has new crops", _spread(answered))
    table.add_row(f"seconds until that search was sent; {FOUND_WITHIN:.0f} at most", _spread(sent))
    table.add_row("violations", str(len(ledger.violations)))
    return table


def _counts(ledger: Ledger) -> str:
    return f"{len(ledger.kept):,}; {len(ledger.deleted):,}; {ledger.posted_twice:,}"


def _spread(seconds: "np.typing.NDArray[np.float64]") -> str:
    p50, p99, most = np.percentile(seconds, (50, 99, 100))
    return f"p50 {p50:.3f}, p99 {p99:.3f}, max {most:.3f}"


def main() -> None:
    """Visit for so many minutes; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that child processes are stopped
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    ledger = replicas(arguments.minutes, arguments.seed)
    console.print(_table(ledger))
    console.print(*ledger.violations[:_SHOWN], sep="\n", markup=False)
    sys.exit(bool(ledger.violations) or not ledger.delays)


if __name__ == "__main__":
    main()
