"""`python -m bench.choices`: the effect of each choice of a recipe at equal cost, also on unseen places.

python -m bench.choices mobile --data market1501:FOLDER --teacher FEATURES.npz --out FOLDER
python -m bench.choices osnet --data market1501:FOLDER --data synthetic:FOLDER --unseen manifest:FILE.csv \\
    --weights person-reidentification-retail-0277.safetensors --out FOLDER
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from rich.console import Console

from app.kit.cores import available_cores
from bench.places import figures, load_as_onnx
from model.commands.places import evaluate_place
from model.commands.splits import choose_split
from model.evaluate import embed_split
from model.train import CHECKPOINT_FILE
from model.training.states import saved_states

HELD_OUT = 100


@dataclass(frozen=True)
class Choice:
    """One row.

    changes: to the recipe. cost: the time of an iteration relative to the base's; the iterations are divided by it.
    sources: which of --data to train on; empty for all.
    """

    name: str
    changes: tuple[str, ...] = ()
    cost: float = 1.0
    teacher: bool = False
    sources: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """The rows of a recipe.

    base: changes of all rows; options: of `model train` in all rows; frozen: whether the trunk is frozen throughout.
    """

    base: tuple[str, ...]
    options: tuple[str, ...]
    iterations: int
    choices: tuple[Choice, ...]
    frozen: bool = False


def _teacher(weight: float) -> tuple[str, ...]:
    return (f"distillation.weight={weight}",)


_LARGER = ("input.height=192", "input.width=96")
_CIRCLE = ("loss.softmax='circle'", "architecture.classifier='cosine'", "loss.label_smoothing=0")

_MOBILE = Table(
    base=("precision='float32'", "input.height=128", "input.width=64", "augmentation.pad=4", "small_start.share=0.0"),
    options=("--identities", "250"),
    iterations=268,  # four times as many as 250 identities of Market-1501 have batches of 64 crops
    choices=(
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
    ),
)

_OSNET = Table(
    base=("batch.sources=[13, 3]", "distillation.weight=100"),
    options=(),
    iterations=250,
    choices=(
        Choice("base: three own heads, distillation 100, light stripes"),
        Choice("distillation 40", _teacher(40)),
        Choice("distillation 250", _teacher(250)),
        Choice("distillation 1000", _teacher(1000)),
        Choice("distillation of the whole embedding alone", ("distillation.global_share=0.0",)),
        Choice("one own head", ("architecture.own_heads=1",)),
        Choice("all parts count the same", ("part_weights=[1, 1, 1, 1, 1, 1, 1, 1]",)),
        Choice("no drawn people", ("batch.sources=[16]",), sources=(0,)),
        Choice("no drawn people, distillation 250", ("batch.sources=[16]", *_teacher(250)), sources=(0,)),
        Choice("drawn people alone", ("batch.sources=[16]",), sources=(1,)),
        Choice("tails at a third of the rate", ("optimizer.learning_rate=4e-5",)),
        Choice("stripes pooled by their maximum", ("architecture.pooling='max'",)),
        Choice("no random erasing", ("augmentation.erase=0",)),
        Choice("moving average, decay 0.98", ("average.decay=0.98",)),
    ),
    frozen=True,
)

TABLES = {"mobile": _MOBILE, "osnet": _OSNET}


def main() -> None:
    """Train every choice without a result, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=TABLES)
    parser.add_argument("--data", required=True, action="append", help="KIND:FOLDER to train on; may be repeated")
    parser.add_argument("--unseen", action="append", default=[], help="KIND:FOLDER to evaluate on as well")
    parser.add_argument(
        "--teacher", type=Path, help="NPZ of a teacher's features, for the rows of mobile that have one"
    )
    parser.add_argument("--weights", type=Path, help="the converted network that osnet starts from")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs; finished ones are not repeated")
    parser.add_argument("--jobs", type=int, default=1, help="concurrent runs; they share the cores")
    arguments = parser.parse_args()
    table = TABLES[arguments.recipe]
    threads = max(1, available_cores() // arguments.jobs)
    places = [arguments.data[0], *arguments.unseen]
    export_lock = Lock()  # torch's exporter is not thread-safe

    def run(choice: Choice) -> list[str]:
        folder: Path = arguments.out / re.sub(r"[^a-z0-9]+", "-", choice.name.lower())
        done = folder / "done"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / CHECKPOINT_FILE).exists():
                _train(choice, table, folder, arguments, threads)
            with export_lock:
                done.write_text(json.dumps(_evaluate(folder / CHECKPOINT_FILE, places)))
        cells: list[str] = json.loads(done.read_text())
        return cells

    console = Console(soft_wrap=True)
    heads = [place.partition(":")[2].rstrip("/").rpartition("/")[2] for place in places]
    console.print(f"| rank-1 / mAP (step) | iterations | {' | '.join(heads)} |\n{'|---' * (len(heads) + 2)}|")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for choice, cells in zip(table.choices, pool.map(run, table.choices), strict=True):
            console.print(f"| {choice.name} | {_iterations(choice, table)} | {' | '.join(cells)} |")


def _iterations(choice: Choice, table: Table) -> int:
    return round(table.iterations / choice.cost)


def _train(choice: Choice, table: Table, folder: Path, arguments: argparse.Namespace, threads: int) -> None:
    iterations = _iterations(choice, table)
    changes = [*table.base, *choice.changes, f"schedule.iterations={iterations}"]
    changes.append(f"schedule.warm_up={iterations // (5 if table.frozen else 8)}")
    if table.frozen:
        changes += [f"initialisation.frozen_trunk_iterations={iterations}"]
        changes += [f"initialisation.weights={json.dumps(f'file:{arguments.weights}')}"]
    command = [sys.executable, "-m", "model", "train", arguments.recipe, "--out", str(folder)]
    command += ["--hold-out", str(HELD_OUT), "--save-every", str(iterations), *table.options]
    for number, data in enumerate(arguments.data):
        if not choice.sources or number in choice.sources:
            command += ["--data", data]
    for change in changes:
        command += ["--set", change]
    if choice.teacher:
        command += ["--teacher", str(arguments.teacher), "--teacher-name", arguments.teacher.name]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if saved_states(folder):
        command.append("--resume")
    with (folder / "output.txt").open("w") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output, env=environment)
    for state in saved_states(folder):
        state.unlink()


def _evaluate(path: Path, places: Sequence[str]) -> list[str]:
    """Rank-1 and mAP of a checkpoint on each place.

    On the first place, only the persons that all rows hold out count, also for a row that was not trained there.
    """
    with TemporaryDirectory() as folder:
        network = load_as_onnx(path, Path(folder) / "checkpoint.onnx")
        cells = []
        for number, place in enumerate(places):
            chosen = choose_split(place, network.metadata.training_data, None if number else HELD_OUT)
            cells.append(figures(evaluate_place(chosen, embed_split(chosen.split, network))))
    return cells


if __name__ == "__main__":
    main()
