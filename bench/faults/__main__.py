"""`python -m bench.faults --rounds 200`: fault injection, with a check of what the service keeps."""

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.faults.kinds import ON_A_DISK_OF_ITS_OWN
from bench.faults.ledger import NO_ANSWER
from bench.faults.rounds import Round, Trial, trial
from bench.postgresql import postgresql
from tests.app.tiny_checkpoint import write_tiny_checkpoint

_DATABASES = ("sqlite", "postgresql")


def faults(database: str, rounds: int, seed: int, console: Console) -> list[Round]:
    """The results of rounds with one kind of database, reported after each round."""
    done = []
    with _trial(database, random.Random(f"{seed} {database}")) as one:
        if missing := [fault.name for fault in ON_A_DISK_OF_ITS_OWN if fault not in one.kinds]:
            console.print(f"{database}: no {', no '.join(missing)}, as only root can mount a small disk")
        for outcome in one.rounds(rounds):
            console.print(f"{database} {_line(outcome)}", highlight=False, markup=False)
            done.append(outcome)
    return done


@contextmanager
def _trial(database: str, rng: random.Random) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="passerby-") as name:
        folder = Path(name)
        checkpoint = write_tiny_checkpoint(folder / "tiny.onnx")
        if database == "sqlite":
            with trial(folder, checkpoint, None, rng) as one:
                yield one
        else:
            with postgresql(folder) as url, trial(folder, checkpoint, url, rng) as one:
                yield one


def _line(outcome: Round) -> str:
    source = f" from {outcome.source}" if outcome.source else ""
    failed = sum(outcome.troubles.values()) - outcome.troubles.get(NO_ANSWER, 0)
    line = (
        f"{outcome.number:3} {', '.join(outcome.faults)}: ready after {outcome.seconds:.1f} s{source}; "
        f"{outcome.kept} crops kept, {outcome.unknown} were unknown, {failed} requests failed"
    )
    return "\n    VIOLATION ".join([line, *outcome.violations])


def _table(done: dict[str, list[Round]]) -> Table:
    table = Table("", *done)
    names = list(dict.fromkeys(name for rounds in done.values() for one in rounds for name in one.faults))
    for name in names:
        table.add_row(
            f"rounds with {name}", *(str(sum(name in one.faults for one in rounds)) for rounds in done.values())
        )
    sources = ("the newest snapshot", "an older snapshot", "rows", "nothing")
    for source in sources:
        counts = (sum(one.source == source for one in rounds) for rounds in done.values())
        table.add_row(f"starts from {source}", *map(str, counts))
    for what, started in (("start", True), ("fault without a start", False)):
        spreads = (_spread([one.seconds for one in rounds if bool(one.source) == started]) for rounds in done.values())
        table.add_row(f"seconds until ready after a {what}", *spreads)
    table.add_row("unknown crops that were looked for", *(str(sum(one.unknown for one in r)) for r in done.values()))
    table.add_row(
        "picture files left behind", *(str(max((one.left_behind for one in r), default=0)) for r in done.values())
    )
    table.add_row("rounds", *(str(len(rounds)) for rounds in done.values()))
    table.add_row("violations", *(str(sum(len(one.violations) for one in rounds)) for rounds in done.values()))
    return table


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    p50, most = np.percentile(seconds, (50, 100))
    return f"p50 {p50:.1f}, max {most:.1f}"


def main() -> None:
    """Run so many rounds with each database; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="with each database")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--database", choices=(*_DATABASES, "both"), default="both")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that child processes are stopped
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    databases = _DATABASES if arguments.database == "both" else (arguments.database,)
    done = {database: faults(database, arguments.rounds, arguments.seed, console) for database in databases}
    console.print(_table(done))
    rounds = [one for of_one in done.values() for one in of_one]
    sys.exit(any(one.violations for one in rounds) or len(rounds) < arguments.rounds * len(databases))


if __name__ == "__main__":
    main()
