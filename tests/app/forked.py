"""Runs `passerby` in processes that are forked from one that has imported it, which takes more than a second."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, and what it has written."""

    code: int | None
    out: str
    err: str


def run_passerby(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str], hides: str | None = None, seconds: int = 120
) -> Ended:
    """Run a command to its end in a folder, with this environment alone; `hides` is a package that is not there."""
    out, err = folder / "stdout", folder / "stderr"
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["app.cli", "app.main", "app.server", "app.start_errors", __name__])
    process = forks.Process(target=_run, args=(folder, tuple(arguments), dict(environment), hides, out, err))
    process.start()
    process.join(seconds)
    process.kill()  # if it has not ended
    process.join()
    return Ended(process.exitcode, out.read_text(), err.read_text())


def _run(
    folder: Path, arguments: Sequence[str], environment: dict[str, str], hides: str | None, out: Path, err: Path
) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["passerby", *arguments]
    from app.cli import main

    with patch.dict(sys.modules, {hides: None} if hides else {}):
        main()
