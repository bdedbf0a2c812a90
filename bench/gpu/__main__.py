"""`python -m bench.gpu`: all benchmarks and checks on a machine with a GPU. It needs no network.

python -m bench.gpu --json gpu.json
python -m bench.gpu --only speed
python -m bench.gpu --device cpu          # a smoke test
python -m bench.gpu train --data market1501:FOLDER --unseen manifest:FILE.csv --weights 0277.safetensors --out runs/gpu
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console

from bench.gpu import parity, serving, speed, train, training
from bench.gpu.findings import FULL, SMALL, Finding, Scale, machine, show, write

PARTS = ("parity", "speed", "serving", "training", "tests")


def main() -> None:
    """Measure, print a table and write JSON; exit with 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--json", type=Path, help="a file for the findings")
    commands = parser.add_subparsers(dest="command")
    train.add_arguments(commands.add_parser("train", help="train for some minutes, with evaluations on the way"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "error: torch finds no GPU here; --device cpu shows that everything runs\n")
    device = torch.device(arguments.device)
    if arguments.command == "train":
        train.run(arguments, device, parser)
        return
    sys.exit(_measure(device, arguments.only or PARTS, arguments.json))


def _measure(device: torch.device, parts: list[str] | tuple[str, ...], json: Path | None) -> int:
    console = Console(soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in machine(device).items()))
    scale = FULL if device.type == "cuda" else SMALL
    found: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        for part, findings in _parts(Path(folder), device, scale).items():
            for finding in findings() if part in parts else ():
                found.append(finding)
                console.print(finding)
                if json:  # after each line, as a machine may be lent for some minutes only
                    write(json, device, found)
    show(found, console)
    return int(any(finding.right is False for finding in found))


def _parts(folder: Path, device: torch.device, scale: Scale) -> dict[str, Callable[[], Iterable[Finding]]]:
    paths = parity.checkpoints(folder)
    return {
        "parity": lambda: parity.findings(paths, device, scale),
        "speed": lambda: speed.findings(paths, device, scale),
        "serving": lambda: serving.findings(device, scale),
        "training": lambda: training.findings(device, scale),
        "tests": lambda: _tests(device),
    }


def _tests(device: torch.device) -> list[Finding]:
    """The tests that need a GPU; a CPU cannot run them."""
    what = "pytest -m gpu tests/gpu"
    if device.type == "cpu":
        return [Finding("tests", what, "not run: they need a GPU")]
    ran = subprocess.run([sys.executable, "-m", *what.split()], check=False, capture_output=True, text=True)
    return [Finding("tests", what, ran.stdout.strip().splitlines()[-1], right=ran.returncode == 0)]


if __name__ == "__main__":
    main()
