"""The lines of the report: measurements and results of checks."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from app.kit.cores import available_cores


@dataclass(frozen=True)
class Finding:
    """One line. reference: what the value is compared with; right: whether it passes its check, None without one."""

    part: str
    what: str
    found: str
    reference: str = ""
    right: bool | None = None

    def __str__(self) -> str:
        return f"{self.part}, {self.what}: {self.found} ({self.reference or 'measured'})"


@dataclass(frozen=True)
class Scale:
    """The amount of work of a run.

    batches: sizes of the engine's batches. seconds: duration of each measurement of speed. compiled: whether to measure
    torch.compile, which takes minutes. clients: numbers of concurrent ones, each of which posts `requests` requests of
    `crops` crops. bulk: clients and crops a request of the load during searches; no load exceeds the service's queue.
    identities, crops_each, warm_up, iterations: of training. matrix: side of the matrices whose product gives the
    arithmetic limit. small_inputs: whether the large networks are trained on small pictures.
    """

    batches: tuple[int, ...]
    seconds: float
    compiled: bool
    clients: tuple[int, ...]
    requests: int
    crops: int
    bulk: tuple[int, int]
    identities: int
    crops_each: int
    warm_up: int
    iterations: int
    matrix: int
    small_inputs: bool


FULL = Scale(
    batches=(1, 4, 16, 64, 128, 256),
    seconds=1.0,
    compiled=True,
    clients=(8, 16, 32, 64),
    requests=4,
    crops=16,
    bulk=(8, 128),
    identities=16,
    crops_each=4,
    warm_up=10,
    iterations=60,
    matrix=8192,
    small_inputs=False,
)
SMALL = Scale(
    batches=(1, 3),
    seconds=0.05,
    compiled=False,
    clients=(2,),
    requests=1,
    crops=4,
    bulk=(2, 16),
    identities=2,
    crops_each=2,
    warm_up=1,
    iterations=2,
    matrix=256,
    small_inputs=True,
)
"""A smoke test for a CPU, in a minute or two."""


def machine(device: torch.device) -> dict[str, str | int]:
    """Hardware and versions."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {platform.machine()}",
        "gpus": torch.cuda.device_count(),
        "cuda": torch.version.cuda or "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": available_cores(),
        "cores of the machine": os.cpu_count() or 0,
    }


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the table."""
    table = Table("part", "what", "found", "compared with", "right")
    verdicts = {None: "", True: "yes", False: "[red]NO[/]"}
    for finding in findings:
        table.add_row(finding.part, finding.what, finding.found, finding.reference, verdicts[finding.right])
    console.print(table)


def write(path: Path, device: torch.device, findings: Sequence[Finding]) -> None:
    """Write the machine and all lines as JSON."""
    report = {"machine": machine(device), "findings": [asdict(finding) for finding in findings]}
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
