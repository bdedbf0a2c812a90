"""`python -m bench.adapt`: what a checkpoint gains, and loses elsewhere, by adapting to a place with few persons.

python -m bench.adapt --checkpoint A.safetensors --data manifest:FILE.csv --other market1501:FOLDER --out FOLDER

A place that the checkpoint has not seen: some of its persons adapt the checkpoint, and all others judge it, the same
in every row. Runs that are there already are not run again, and one that was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.places import cell, judged
from model.datasets import open_data_set
from model.datasets.base import findable_persons
from model.errors import DataError, ModelError
from model.loading import Inference, load_for_inference
from model.provenance import training_summary
from model.report import read_log
from model.train import CHECKPOINT_FILE
from model.training.run_log import LOG_FILE
from model.training.states import saved_states

IDENTITIES = (50, 100, 200)


def main() -> None:
    """Adapt with each number of persons, judge all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="a .safetensors checkpoint")
    parser.add_argument("--data", required=True, help="KIND:FOLDER of the place that it is adapted to")
    parser.add_argument("--other", required=True, help="KIND:FOLDER of a second place, for what is lost there")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    parser.add_argument(
        "--identities", type=int, nargs="+", default=IDENTITIES, help="persons that adapt it, a row each"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training's batches and first classifiers")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as `python -m model adapt --set`")
    arguments = parser.parse_args()
    try:
        lines = measured(arguments)
    except ModelError as error:
        parser.exit(2, f"error: {error}\n")
    print("\n".join(lines))


def measured(arguments: argparse.Namespace) -> list[str]:
    """The lines of the Markdown table and what is below it. Raises ModelError."""
    held_out = _others(arguments.data, max(arguments.identities))
    settings = [f"seed={arguments.seed}", *arguments.settings]
    runs = [arguments.out / f"{count}-{arguments.seed}" for count in arguments.identities]
    for folder, count in zip(runs, arguments.identities, strict=True):
        adapt(arguments.checkpoint, arguments.data, held_out, count, settings, folder)
    networks = [load_for_inference(path) for path in (arguments.checkpoint, *(run / CHECKPOINT_FILE for run in runs))]
    columns = [judged(networks, data) for data in (arguments.data, arguments.other)]
    heads = " | ".join(f"{column[0].chosen.name}: rank-1 / mAP (step), %" for column in columns)
    lines = [f"| adapted with | crops | minutes | {heads} |", "|---|---|---|---|---|"]
    firsts = ["nobody yet | - | -", *(_adapted_with(run, one) for run, one in zip(runs, networks[1:], strict=True))]
    for row, first in enumerate(firsts):
        lines.append(f"| {' | '.join([first, *(cell(column[row]) for column in columns)])} |")
    seeds = f"seeds: 0 of who is held out, of who adapts it and of the queries; {arguments.seed} of the training"
    return [*lines, "", *(f"- {training_summary(network.metadata)}" for network in networks), f"- {seeds}"]


def adapt(checkpoint: Path, data: str, held_out: int, identities: int, settings: Sequence[str], folder: Path) -> None:
    """Adapt the checkpoint with so many persons, into a folder, unless that is done. Raises DataError."""
    asked = {"checkpoint": str(checkpoint), "data": data, "held_out": held_out, "settings": list(settings)}
    done = folder / "done.json"
    if done.exists():
        found = json.loads(done.read_text(encoding="utf-8"))
        if found != asked:
            raise DataError(f"{folder} holds a run of {found}: choose another --out")
        return
    command = [sys.executable, "-m", "model", "adapt", "--from", str(checkpoint), "--data", data, "--out", str(folder)]
    command += ["--hold-out", str(held_out), "--identities", str(identities)]
    for setting in settings:
        command += ["--set", setting]
    if saved_states(folder):
        command.append("--resume")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("w") as output:
        ended = subprocess.run(command, check=False, stdout=output, stderr=output)
    if ended.returncode:
        raise DataError(
            f"adapting with {identities} persons ended with {ended.returncode}: see {folder / 'output.txt'}"
        )
    done.write_text(json.dumps(asked), encoding="utf-8")


def _adapted_with(run: Path, network: Inference) -> str:
    """Persons, crops and minutes; how long the iterations took, by the run's log, without judging before and after."""
    data, batch = network.metadata.training_data, network.metadata.recipe["batch"]
    before, seconds = 0, 0.0
    for line in read_log(run / LOG_FILE):
        if "crops_per_second" in line:
            crops = (line["iteration"] - before) * batch["identities"] * batch["crops"] * batch["accumulation"]
            before, seconds = line["iteration"], seconds + crops / line["crops_per_second"]
    return f"{data.identities} persons | {data.crops:,} | {seconds / 60:.1f}"


def _others(data: str, identities: int) -> int:
    """How many persons are left to judge on. Raises DataError."""
    findable = len(findable_persons(open_data_set(data).train()))
    if findable <= identities:
        raise DataError(f"{data} has {findable} persons that can be found: none is left beside {identities} that adapt")
    return findable - identities


if __name__ == "__main__":
    main()
