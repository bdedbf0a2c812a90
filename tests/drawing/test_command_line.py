"""`python -m drawing`: a folder of crops, or one sentence and exit code 2."""

import sys
from pathlib import Path

import pytest

from drawing.__main__ import main
from model.datasets.synthetic import MANIFEST


def test_the_command_draws_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["drawing", str(tmp_path), "--people", "2", "--cameras", "2", "--seed", "5"])
    main()
    assert capsys.readouterr().out == f"12 crops of 2 persons, drawn into {tmp_path}\n"
    assert (tmp_path / MANIFEST).exists()


def test_numbers_out_of_range_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["drawing", str(tmp_path / "out"), "--cameras", "9"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: cameras is 9; it must be from 2 to 8\n"
    assert not (tmp_path / "out").exists()
