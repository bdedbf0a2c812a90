"""`python -m bench.choices`: what each choice of the mobile recipe is worth, at equal cost on identities held out."""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from app.kit.cores import available_cores
from model.loading import read_metadata

HELD_OUT = 100
IDENTITIES = 250
ITERATIONS = 268  # four times as many as 250 identities of Market-1501 have batches of 64 crops
BASE = ("precision='float32'", "input.height=128", "input.width=64", "augmentation.pad=4", "small_start.share=0.0")


@dataclass(frozen=True)
class Choice:
    """One row: what is changed, and the time of an iteration relative to the base's, by which its number is divided."""

    name: str
    changes: tuple[str, ...] = ()
    cost: float = 1.0
    teacher: bool = False


def _teacher(weight: float) -> tuple[str, ...]:
    return (f"distillation.weight={weight}",)


_LARGER = ("input.height=192", "input.width=96")
_CIRCLE = ("loss.softmax='circle'", "architecture.classifier='cosine'", "loss.label_smoothing=0")

CHOICES = (
    Choice("base: mobile at 128x64 without teacher and moving average"),
    Choice("teacher, weight 20", _teacher(20), teacher=True),
    Choice("input 192x96", _LARGER, cost=2.25),
    Choice("teacher, weight 100", _teacher(100), teacher=True),
    Choice("moving average, decay 0.98", ("average.decay=0.98",)),
    Choice("nothing frozen", ("initialisation.frozen_trunk_blocks=0",), cost=1.35),
    Choice(
        "input 192x96 after 134 iterations at 128x64",
        (*_LARGER, "small_start.height=128", "small_start.width=64", f"small_start.share={134 / 194}"),
        cost=268 / (134 + 134 / 2.25),
    ),
    Choice("soft-margin triplet, not normalised", ("loss.triplet='soft'", "loss.normalise_triplet=false")),
    Choice("circle loss in place of softmax", _CIRCLE),
    Choice("no random erasing", ("augmentation.erase=0",)),
    Choice("margin 0.6", ("loss.margin=0.6",)),
    Choice("twice the iterations, twice the cost", cost=0.5),
)


def main() -> None:
    """Train every choice that has not been yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="market1501:FOLDER")
    parser.add_argument("--teacher", required=True, type=Path, help="NPZ of a teacher's features")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs; what is there is not run again")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time; they share the cores")
    arguments = parser.parse_args()
    threads = max(1, available_cores() // arguments.jobs)

    def run(number: int) -> Path:
        folder: Path = arguments.out / re.sub(r"[^a-z0-9]+", "-", CHOICES[number].name.lower())
        if not (folder / "done").exists():
            _train(CHOICES[number], folder, arguments.data, arguments.teacher, threads)
        return folder

    console = Console(soft_wrap=True)
    console.print("| choice | iterations | rank-1 | mAP (step) |\n|---|---|---|---|")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for choice, folder in zip(CHOICES, pool.map(run, range(len(CHOICES))), strict=True):
            result = read_metadata(folder / "checkpoint.safetensors").results[0]
            figures = f"{100 * result.rank1:.1f} % | {100 * result.map_step:.1f} %"
            console.print(f"| {choice.name} | {_iterations(choice)} | {figures} |")


def _iterations(choice: Choice) -> int:
    return round(ITERATIONS / choice.cost)


def _train(choice: Choice, folder: Path, data: str, teacher: Path, threads: int) -> None:
    iterations = _iterations(choice)
    changes = (*BASE, *choice.changes, f"schedule.iterations={iterations}", f"schedule.warm_up={iterations // 8}")
    command = [sys.executable, "-m", "model", "train", "mobile", "--data", data, "--out", str(folder)]
    command += ["--hold-out", str(HELD_OUT), "--identities", str(IDENTITIES), "--save-every", str(iterations)]
    for change in changes:
        command += ["--set", change]
    if choice.teacher:
        command += ["--teacher", str(teacher), "--teacher-name", teacher.name]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(threads, 1))}
    folder.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if list(folder.glob("state-*.pt")) else []
    with (folder / "output.txt").open("w") as output:
        subprocess.run([*command, *resume], check=True, stdout=output, stderr=output, env=environment)
    for state in folder.glob("state-*.pt"):
        state.unlink()
    (folder / "done").write_text(json.dumps(changes))


if __name__ == "__main__":
    main()
