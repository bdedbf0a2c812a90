"""The log of a training run: a progress bar, a JSON-lines file, TensorBoard."""

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

from model.figures import DASH, to_json
from model.files import write_atomically

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class RunLog:
    """Writes figures to the progress bar, the JSON-lines file and TensorBoard."""

    def __init__(self, folder: Path, bar: Progress, task: TaskID, tensorboard: SummaryWriter) -> None:
        self._log = folder / LOG_FILE
        self._bar = bar
        self._task = task
        self._tensorboard = tensorboard
        self._began = time.perf_counter()
        self._crops = 0

    def count_crops(self, crops: int) -> None:
        """Record one finished iteration of `crops` crops."""
        self._crops += crops
        self._bar.advance(self._task)

    def log_training(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Write mean losses since the last call, the learning rate, and the crops per second."""
        now = time.perf_counter()
        line = dict(figures) | {"crops_per_second": round(self._crops / (now - self._began), 1)}
        self._began, self._crops = now, 0
        self._write({"iteration": iteration} | line)
        self._bar.update(self._task, loss=f"{line['loss']:.3f}")
        self._add_scalars("training", line, iteration)

    def log_validation(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Write metrics on the held-out identities; the time they took does not count for the crops per second."""
        self._write({"iteration": iteration, "validation": dict(figures)})
        self._add_scalars("validation", figures, iteration)
        self._began, self._crops = time.perf_counter(), 0

    def _write(self, line: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")

    def _add_scalars(self, group: str, figures: Mapping[str, float], iteration: int) -> None:
        """Add the figures that are defined to TensorBoard."""
        for name, value in figures.items():
            if math.isfinite(value):
                self._tensorboard.add_scalar(f"{group}/{name}", value, iteration)


@contextmanager
def open_run_log(folder: Path, iterations: int, done: int) -> Iterator[RunLog]:
    """The log of a run that resumes after `done` iterations; deletes the lines of later iterations."""
    _truncate(folder / LOG_FILE, done)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("loss {task.fields[loss]}"),
    )
    with (
        SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done + 1) as tensorboard,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        yield RunLog(folder, bar, bar.add_task("", total=iterations, completed=done, loss=DASH), tensorboard)


def _truncate(log: Path, done: int) -> None:
    """Delete the lines of iterations after `done`, which the resumed run repeats and logs again."""
    if not log.exists():
        return
    lines = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if _is_kept(line, done)
    ]
    write_atomically(log, "".join(lines).encode())


def _is_kept(line: str, done: int) -> bool:
    try:
        return bool(json.loads(line)["iteration"] <= done)
    except (ValueError, KeyError, TypeError):  # a line truncated by a crash
        return False
