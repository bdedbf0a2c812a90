"""Two places, and a checkpoint that was trained on one of them."""

from pathlib import Path

import pytest

from model.checkpoint import Checkpoint, TrainingData, save_checkpoint
from tests.model.evaluation_factories import CommandResult, drawn_crops, run_model
from tests.model.model_factories import write_checkpoint, write_market

MARKET = TrainingData(name="Market-1501", terms="research", identities=4, crops=24, held_out_identities=2)


def described_checkpoint(path: Path, data: TrainingData = MARKET) -> Checkpoint:
    plain = write_checkpoint(path)
    return save_checkpoint(path, plain.weights, plain.metadata.model_copy(update={"training_data": data}))


def market_without_test(folder: Path) -> Path:
    """A miniature of Market-1501 without the official test part."""
    root = write_market(folder / "market")
    for part in ("query", "bounding_box_test"):
        (root / part).rename(folder / part)
    return root


class Place:
    """Two places and a checkpoint trained on the first of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.checkpoint = folder / "c.safetensors"
        described_checkpoint(self.checkpoint)
        self.market = f"market1501:{market_without_test(folder)}"
        self.drawn = f"synthetic:{drawn_crops()}"
        self._tools = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "120")

    def evaluate(self, *data: str, options: tuple[object, ...] = ()) -> CommandResult:
        given = [part for spec in data for part in ("--data", spec)]
        return run_model(*self._tools, "evaluate", "--checkpoint", self.checkpoint, *given, *options)
