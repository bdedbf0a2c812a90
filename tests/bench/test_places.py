"""`python -m bench.places`: several checkpoints on several places."""

import re
import sys
from pathlib import Path

import pytest

from bench import places
from model.checkpoint import TrainingData
from tests.model.places import Place, described_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, monkeypatch, capsys)


def test_all_checkpoints_are_evaluated_on_the_same_crops(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TrainingData(name="synthetic", terms="free", identities=8, crops=9, teacher="a teacher")
    other = described_checkpoint(tmp_path / "other.safetensors", data)
    arguments = ("--checkpoint", place.checkpoint, "--checkpoint", tmp_path / "other.safetensors")
    arguments += ("--data", place.market, "--data", place.drawn)
    monkeypatch.setattr(sys, "argv", ["places", *map(str, arguments)])
    places.main()
    head, _, first, second, empty, *below = capsys.readouterr().out.splitlines()
    assert "Market-1501, 2 identities held out of the training part (6 queries)" in head
    assert re.fullmatch(r"\| test-\w+ \| [\d.]+ / [\d.]+ \(in-domain\) \| [\d.]+ / [\d.]+ \|", first)
    assert re.fullmatch(r"\| test-\w+ \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \(in-domain, these persons\) \|", second)
    assert not empty
    assert below[1] == f"- {other.metadata.model_id} was trained on synthetic (8 persons), with the teacher a teacher"


def test_a_missing_checkpoint_is_an_error_message_and_exit_code_2(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["places", "--checkpoint", "nowhere.safetensors", "--data", place.market])
    with pytest.raises(SystemExit) as ended:
        places.main()
    assert ended.value.code == 2
    assert "there is no checkpoint at nowhere.safetensors" in capsys.readouterr().err
