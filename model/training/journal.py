"""What a run tells while it goes on: a progress bar, a JSON-lines log, TensorBoard."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Journal:
    """Writes each line of figures to all three places."""

    def __init__(self, folder: Path, bar: Progress, task: TaskID, tensorboard: SummaryWriter) -> None:
        self._log = folder / LOG_FILE
        self._bar = bar
        self._task = task
        self._tensorboard = tensorboard
        self._began = time.perf_counter()
        self._crops = 0

    def count(self, crops: int) -> None:
        """One iteration with so many crops is done."""
        self._crops += crops
        self._bar.advance(self._task)

    def training(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Losses and rates, means since the last such line; adds the crops per second."""
        now = time.perf_counter()
        line = dict(figures) | {"crops_per_second": round(self._crops / (now - self._began), 1)}
        self._began, self._crops = now, 0
        self._write({"iteration": iteration} | line)
        self._bar.update(self._task, loss=line["loss"])
        for name, value in line.items():
            self._tensorboard.add_scalar(f"training/{name}", value, iteration)

    def validation(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Figures measured on the identities held out."""
        self._write({"iteration": iteration, "validation": dict(figures)})
        for name, value in figures.items():
            self._tensorboard.add_scalar(f"validation/{name}", value, iteration)
        self._began, self._crops = time.perf_counter(), 0

    def _write(self, line: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def opened_journal(folder: Path, iterations: int, done: int) -> Iterator[Journal]:
    """The journal of a run that has `done` iterations behind it; forgets lines of any that were done after that."""
    _forget(folder / LOG_FILE, done)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with (
        SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done + 1) as tensorboard,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        yield Journal(folder, bar, bar.add_task("", total=iterations, completed=done, loss=math.nan), tensorboard)


def _forget(log: Path, done: int) -> None:
    """A run that goes on from a state does again what came after it, and would tell it twice."""
    if not log.exists():
        return
    lines = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if _is_before(line, done)]
    temporary = log.with_suffix(".tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(log)


def _is_before(line: str, done: int) -> bool:
    try:
        return bool(json.loads(line)["iteration"] <= done)
    except ValueError:  # the line that a crash cut off
        return False
