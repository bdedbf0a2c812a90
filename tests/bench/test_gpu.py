"""All of `python -m bench.gpu` runs on a CPU, so that no time on a GPU is spent on finding mistakes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from bench.gpu.findings import FULL, SMALL, Scale
from tests.model.drawn_people import copy_people
from tests.model.training_factories import omz_changes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def bench_gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command without GPUs."""
    command = [sys.executable, "-m", "bench.gpu", *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, env=environment)


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    ran = bench_gpu("--device", "cpu", "--json", tmp_path / "found.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    findings = report["findings"]
    assert {finding["part"] for finding in findings} == {"parity", "speed", "serving", "training", "tests"}
    checked = [finding for finding in findings if finding["right"] is not None]
    assert {finding["what"].partition(":")[0] for finding in checked} == {"mgn-osnet", "mgn-osnet-small", "resnet50"}
    assert all(finding["right"] for finding in checked)
    assert report["machine"]["device"].startswith("CPU")


@pytest.mark.parametrize("scale", [FULL, SMALL])
def test_no_load_exceeds_the_queue(scale: Scale) -> None:
    """Otherwise the service answers with 429, which ends the measurement."""
    capacity = Settings.model_fields["queue_capacity"].default
    assert max(scale.clients) * scale.crops <= capacity
    assert math.prod(scale.bulk) <= capacity


def test_without_a_gpu_it_says_so() -> None:
    ran = bench_gpu()
    assert ran.returncode == 2
    assert "torch finds no GPU here" in ran.stderr


def test_training_saves_and_evaluates_checkpoints_on_the_way(tmp_path: Path) -> None:
    copy_people(tmp_path / "drawn", range(1, 13))
    copy_people(tmp_path / "elsewhere", range(13, 25))
    changes = omz_changes(tmp_path) | {"batch.sources": [], "precision": "float32"}
    weights = str(changes.pop("initialisation.weights")).removeprefix("file:")
    del changes["initialisation.frozen_trunk_iterations"]
    ran = bench_gpu(
        *("--device", "cpu", "train", "--network", "osnet", "--weights", weights, "--iterations", 2, "--hold-out", 4),
        *("--data", f"synthetic:{tmp_path / 'drawn'}", "--unseen", f"manifest:{tmp_path / 'elsewhere/manifest.csv'}"),
        *("--out", tmp_path / "runs", "--cache", tmp_path / "cache"),
        *(argument for name, value in changes.items() for argument in ("--set", f"{name}={json.dumps(value)}")),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "checkpoint-00000002.safetensors: synthetic rank-1" in ran.stdout
    assert (tmp_path / "runs" / "osnet" / "checkpoint-00000002.safetensors").exists()
