"""`python -m bench.faults --rounds 200`: fault injection, with a check of what the service keeps."""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.faults.kinds import ON_SEPARATE_DISK
from bench.faults.ledger import NO_ANSWER
from bench.faults.rounds import Round, Trial, trial
from bench.postgresql import postgresql
from bench.rows import spread
from bench.service import exit_on_sigterm
from tests.app.tiny_checkpoint import write_tiny_checkpoint

_DATABASES = ("sqlite", "postgresql")
_SOURCES = ("the newest snapshot", "an older snapshot", "rows", "nothing")


def faults(database: str, rounds: int, seed: int, console: Console) -> list[Round]:
    """Run rounds with one kind of database, and print each result."""
    results = []
    with _trial(database, random.Random(f"{seed} {database}")) as running:
        if missing := [fault.name for fault in ON_SEPARATE_DISK if fault not in running.kinds]:
            console.print(f"{database}: no {', no '.join(missing)}, as only root can mount a small disk")
        for result in running.rounds(rounds):
            console.print(f"{database} {_line(result)}", highlight=False, markup=False)
            results.append(result)
    return results


@contextmanager
def _trial(database: str, rng: random.Random) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="passerby-") as name:
        folder = Path(name)
        checkpoint = write_tiny_checkpoint(folder / "tiny.onnx")
        server = postgresql(folder) if database == "postgresql" else nullcontext()
        with server as url, trial(folder, checkpoint, url, rng) as running:
            yield running


def _line(result: Round) -> str:
    source = f" from {result.source}" if result.source else ""
    failed = result.errors.total() - result.errors[NO_ANSWER]
    line = (
        f"{result.number:3} {', '.join(result.faults)}: ready after {result.seconds:.1f} s{source}; "
        f"{result.kept} crops kept, {result.unknown} were unknown, {failed} requests failed"
    )
    return "\n    VIOLATION ".join([line, *result.violations])


def _table(results: dict[str, list[Round]]) -> Table:
    """A column for each database."""
    faults = list(dict.fromkeys(name for rounds in results.values() for result in rounds for name in result.faults))
    columns = [_column(rounds, faults) for rounds in results.values()]
    table = Table("", *results)
    for what in columns[0]:
        table.add_row(what, *(column[what] for column in columns))
    return table


def _column(rounds: list[Round], faults: Sequence[str]) -> dict[str, str]:
    """The cells of one database, by the name of their row."""
    injected = Counter(name for result in rounds for name in result.faults)
    sources = Counter(result.source for result in rounds)
    started = [result.seconds for result in rounds if result.source]
    not_started = [result.seconds for result in rounds if not result.source]
    return {
        **{f"rounds with {name}": str(injected[name]) for name in faults},
        **{f"starts from {source}": str(sources[source]) for source in _SOURCES},
        "seconds until ready after a start": spread(started, (50, 100), "{:.1f}"),
        "seconds until ready after a fault without a start": spread(not_started, (50, 100), "{:.1f}"),
        "unknown crops that were looked for": str(sum(result.unknown for result in rounds)),
        "picture files left behind": str(max((result.orphaned_files for result in rounds), default=0)),
        "rounds": str(len(rounds)),
        "violations": str(sum(len(result.violations) for result in rounds)),
    }


def main() -> None:
    """Run the rounds; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="with each database")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--database", choices=(*_DATABASES, "both"), default="both")
    arguments = parser.parse_args()
    exit_on_sigterm()
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    databases = _DATABASES if arguments.database == "both" else (arguments.database,)
    results = {database: faults(database, arguments.rounds, arguments.seed, console) for database in databases}
    console.print(_table(results))
    sys.exit(any(result.violations for result in chain.from_iterable(results.values())))


if __name__ == "__main__":
    main()
