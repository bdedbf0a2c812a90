"""`python -m bench.adapt`: what a checkpoint gains by adapting to a place with a few persons, and loses elsewhere.

python -m bench.adapt --checkpoint A.safetensors --data manifest:FILE.csv --other market1501:FOLDER --out FOLDER

The place must be unseen by the checkpoint. Some of its persons adapt the checkpoint; the rest evaluate it, the same in
every row. Finished runs are not repeated; a stopped run continues.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.places import cell, evaluate_all, load_as_onnx
from model.datasets import open_data_set
from model.datasets.base import findable_persons
from model.errors import DataError, ModelError
from model.loading import Inference
from model.provenance import training_summary
from model.report import read_log
from model.train import CHECKPOINT_FILE
from model.training.run_log import LOG_FILE
from model.training.states import saved_states

IDENTITIES = (50, 100, 200)


def main() -> None:
    """Adapt with each number of persons, evaluate all results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="a .safetensors checkpoint")
    parser.add_argument("--data", required=True, help="KIND:FOLDER of the place to adapt to")
    parser.add_argument("--other", required=True, help="KIND:FOLDER of a second place, to measure the loss there")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    parser.add_argument(
        "--identities", type=int, nargs="+", default=IDENTITIES, help="numbers of persons to adapt with, a row each"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training's batches and initial classifiers")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as `python -m model adapt --set`")
    arguments = parser.parse_args()
    try:
        lines = measure(arguments)
    except ModelError as error:
        parser.exit(2, f"error: {error}\n")
    print("\n".join(lines))


def measure(arguments: argparse.Namespace) -> list[str]:
    """Adapt and evaluate; returns the lines of the Markdown table and of its notes. Raises ModelError."""
    held_out = _count_held_out(arguments.data, max(arguments.identities))
    settings = [f"seed={arguments.seed}", *arguments.settings]
    runs = [arguments.out / f"{count}-{arguments.seed}" for count in arguments.identities]
    for folder, count in zip(runs, arguments.identities, strict=True):
        adapt(arguments.checkpoint, arguments.data, held_out, count, settings, folder)
    with TemporaryDirectory() as folder:
        networks = [
            load_as_onnx(path, Path(folder) / f"{number}.onnx")
            for number, path in enumerate([arguments.checkpoint, *(run / CHECKPOINT_FILE for run in runs)])
        ]
        columns = [evaluate_all(networks, data) for data in (arguments.data, arguments.other)]
    heads = " | ".join(f"{column[0].chosen.name}: rank-1 / mAP (step), %" for column in columns)
    lines = [f"| adapted with | crops | minutes | {heads} |", "|---|---|---|---|---|"]
    adaptations = [_adaptation(run, network) for run, network in zip(runs, networks[1:], strict=True)]
    for adaptation, *results in zip(["nobody yet | - | -", *adaptations], *columns, strict=True):
        lines.append(f"| {adaptation} | {' | '.join(map(cell, results))} |")
    seeds = f"seeds: 0 of held-out persons, persons to adapt with and queries; {arguments.seed} of the training"
    return [*lines, "", *(f"- {training_summary(network.metadata)}" for network in networks), f"- {seeds}"]


def adapt(checkpoint: Path, data: str, held_out: int, identities: int, settings: Sequence[str], folder: Path) -> None:
    """Adapt the checkpoint with `identities` persons into a folder, unless that is done. Raises DataError."""
    requested = {"checkpoint": str(checkpoint), "data": data, "held_out": held_out, "settings": list(settings)}
    done = folder / "done.json"
    if done.exists():
        finished = json.loads(done.read_text(encoding="utf-8"))
        if finished != requested:
            raise DataError(f"{folder} holds a run of {finished}: choose another --out")
        return
    command = [sys.executable, "-m", "model", "adapt", "--from", str(checkpoint), "--data", data, "--out", str(folder)]
    command += ["--hold-out", str(held_out), "--identities", str(identities)]
    for setting in settings:
        command += ["--set", setting]
    if saved_states(folder):
        command.append("--resume")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("w") as output:
        code = subprocess.run(command, check=False, stdout=output, stderr=output).returncode
    if code:
        raise DataError(f"adapting with {identities} persons ended with {code}: see {folder / 'output.txt'}")
    done.write_text(json.dumps(requested), encoding="utf-8")


def _adaptation(run: Path, network: Inference) -> str:
    """The persons, crops and minutes of a run, by its log, without the evaluations before and after."""
    data, batch = network.metadata.training_data, network.metadata.recipe["batch"]
    crops_an_iteration = batch["identities"] * batch["crops"] * batch["accumulation"]
    last_iteration, seconds = 0, 0.0
    for line in read_log(run / LOG_FILE):
        if "crops_per_second" in line:
            seconds += (line["iteration"] - last_iteration) * crops_an_iteration / line["crops_per_second"]
            last_iteration = line["iteration"]
    return f"{data.identities} persons | {data.crops:,} | {seconds / 60:.1f}"


def _count_held_out(data: str, identities: int) -> int:
    """The number of persons to evaluate on. Raises DataError."""
    findable = len(findable_persons(open_data_set(data).train()))
    if findable <= identities:
        raise DataError(f"{data} has {findable} findable persons: none is left to evaluate after {identities} adapt it")
    return findable - identities


if __name__ == "__main__":
    main()
