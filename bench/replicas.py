"""`python -m bench.replicas --minutes 5`: whether two services on one PostgreSQL agree under load."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.pictures import Pictures
from bench.postgresql import postgresql
from bench.replica_clients import MAX_DELAY_SECONDS, Ledger, run_clients
from bench.rows import spread
from bench.service import exit_on_sigterm, service

_SHOWN = 20


def replicas(minutes: float, seed: int) -> Ledger:
    """The results of clients of two services with the bundled checkpoint."""
    with tempfile.TemporaryDirectory(prefix="passerby-") as name, postgresql(Path(name)) as url:
        folder = Path(name)
        settings = {"PASSERBY_DATABASE_URL": url, "PASSERBY_IMAGES_URL": (folder / "images").as_uri()}
        with service(folder / "a", settings=settings) as a, service(folder / "b", settings=settings) as b:
            return run_clients([a.port, b.port], Pictures(), 60 * minutes, seed)


def _table(ledger: Ledger) -> Table:
    table = Table("two services on one PostgreSQL", "")
    counts = f"{len(ledger.kept):,}; {len(ledger.deleted):,}; {ledger.posted_twice:,}"
    table.add_row("crops kept; deleted; posted to both at once", counts)
    table.add_row("searches", f"{ledger.searches:,}")
    delays = {
        "seconds until the other's first answer that has new crops": [delay.answered for delay in ledger.delays],
        f"seconds until that search was sent; {MAX_DELAY_SECONDS:.0f} at most": [delay.sent for delay in ledger.delays],
    }
    for what, seconds in delays.items():
        table.add_row(what, spread(seconds, (50, 99, 100), "{:.3f}"))
    table.add_row("violations", str(len(ledger.violations)))
    return table


def main() -> None:
    """Run the clients; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    exit_on_sigterm()
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    ledger = replicas(arguments.minutes, arguments.seed)
    console.print(_table(ledger))
    console.print(*ledger.violations[:_SHOWN], sep="\n", markup=False)
    sys.exit(bool(ledger.violations) or not ledger.delays)


if __name__ == "__main__":
    main()
