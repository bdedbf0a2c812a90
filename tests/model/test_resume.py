"""A resumed run ends with bit-identical weights to an uninterrupted one."""

import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.errors import TrainingError
from model.training.states import load_newest_state, save_state, saved_states
from tests.model.training_factories import command, environment, logged, run_command, write_teacher

pytestmark = pytest.mark.slow

CHANGES: dict[str, object] = {
    "schedule.iterations": 12,
    "average.decay": 0.9,
    "distillation.weight": 5.0,
    "augmentation.jitter": 0.2,
    "augmentation.auto": "random",
    "optimizer.gradient_clip": 5.0,
}


def options(folder: Path) -> tuple[str, ...]:
    return ("--teacher", str(write_teacher(folder)), "--teacher-name", "none", "--save-every", "3")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a market, with a run `uninterrupted` on it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ended = run_command(folder, "uninterrupted", CHANGES, *options(folder))
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_resumed_run_gives_bit_identical_weights(uninterrupted: Path, how: signal.Signals) -> None:
    folder, extra = uninterrupted, options(uninterrupted)
    with subprocess.Popen(
        command(folder, how.name, CHANGES, *extra), env=environment(), stderr=subprocess.PIPE
    ) as interrupted:
        wait_for_iterations(folder / how.name, 5)
        interrupted.send_signal(how)
        _, stderr = interrupted.communicate(timeout=120)
    at = saved_states(folder / how.name)[-1]
    if how == signal.SIGTERM:
        assert interrupted.returncode == 128 + signal.SIGTERM
        assert re.search(rb"stopped after iteration \d+ of 12; continue with --resume", b" ".join(stderr.split()))
    assert int(at.stem[-8:]) < 12, "the run was interrupted"
    resumed = run_command(folder, how.name, CHANGES, *extra, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    first, second = (load_checkpoint(folder / run / "checkpoint.safetensors") for run in ("uninterrupted", how.name))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert first.metadata == second.metadata
    losses = [[line["loss"] for line in logged(folder / run)] for run in ("uninterrupted", how.name)]
    assert losses[0] == losses[1], "the log has every iteration once"


def test_the_newest_two_states_are_kept(tmp_path: Path) -> None:
    for iteration in (1, 20, 300):
        save_state(tmp_path, iteration, {"iteration": iteration})
    assert [path.name for path in saved_states(tmp_path)] == ["state-00000020.pt", "state-00000300.pt"]
    assert load_newest_state(tmp_path) == {"iteration": 300}


@pytest.mark.parametrize("size", [0, 100, 700])
def test_a_damaged_state_is_reported_with_a_remedy(tmp_path: Path, size: int) -> None:
    for iteration in (1, 2):
        save_state(tmp_path, iteration, {"numbers": torch.arange(100)})
    newest = saved_states(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:size])
    with pytest.raises(
        TrainingError, match=r"state-00000002\.pt is damaged .*; delete it to go on from state-00000001"
    ):
        load_newest_state(tmp_path)


def wait_for_iterations(run: Path, count: int) -> None:
    began = time.monotonic()
    while not (run / "log.jsonl").exists() or len(logged(run)) < count:
        assert time.monotonic() - began < 120, "the run makes no progress"
        time.sleep(0.02)
