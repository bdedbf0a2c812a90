"""Imports of folders as real systems leave them, into a real service."""

import csv
import os
import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from app.client.importing import run_import
from app.settings import Settings
from tests.app.running import jpeg

Run = Callable[[Settings], httpx.Client]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What is tested here depends on no kind of database."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def imported(client: httpx.Client, source: Path, failures: Path | None = None) -> tuple[int, str]:
    """The exit code and the printed lines of `passerby import`."""
    printed = StringIO()
    code = run_import(source, str(client.base_url), None, failures, Console(file=printed, width=200))
    return code, printed.getvalue()


def test_after_touch_and_cp_nothing_is_stored_twice(run: Run, settings: Settings, tmp_path: Path) -> None:
    client = run(settings)
    for seed in range(3):
        write(tmp_path / "crops" / "gate" / f"{seed}.jpg", jpeg(seed))
    code, printed = imported(client, tmp_path / "crops")
    assert (code, "3 stored, 0 existing" in printed) == (0, True)
    assert "The times of 3 crops are guesses" in printed
    os.utime(tmp_path / "crops" / "gate" / "0.jpg", (1_000_000_000, 1_000_000_000))
    shutil.copytree(tmp_path / "crops", tmp_path / "copy", copy_function=shutil.copyfile)
    assert "0 stored, 3 existing" in imported(client, tmp_path / "crops")[1]
    assert "0 stored, 3 existing" in imported(client, tmp_path / "copy")[1]
    assert all(crop["time_guessed"] for crop in client.get("/crops").json()["items"])


def test_cameras_have_the_names_of_their_folders(run: Run, settings: Settings, tmp_path: Path) -> None:
    client = run(settings)
    for seed, name in enumerate(("Süd Eingang", "摄像头1", "摄像头2", "gate")):
        write(tmp_path / "crops" / name / "1.jpg", jpeg(seed))
    imported(client, tmp_path / "crops")
    cameras = {camera["name"]: camera["id"] for camera in client.get("/cameras").json()}
    assert cameras.keys() == {"Süd Eingang", "摄像头1", "摄像头2", "gate"}
    assert cameras["Süd Eingang"] == "sud-eingang"
    client.put("/cameras/sud-eingang", json={"name": "South door"})
    imported(client, tmp_path / "crops")
    assert client.get("/cameras/sud-eingang").json()["name"] == "South door", "an operator's name stays"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_file_name_that_is_not_utf_8_is_stored_or_fails_alone(run: Run, settings: Settings, tmp_path: Path) -> None:
    client = run(settings)
    folder = tmp_path / "crops" / os.fsdecode(b"T\xfcr")
    write(folder / os.fsdecode(b"b\xe4r.jpg"), jpeg(1))
    write(folder / os.fsdecode(b"n\xefx.jpg"), b"no picture")
    code, printed = imported(client, tmp_path / "crops", tmp_path / "failures.csv")
    assert code == 1
    assert "1 stored, 0 existing, 1 failed" in printed
    with (tmp_path / "failures.csv").open(encoding="utf-8", newline="") as file:
        (failed,) = csv.DictReader(file)
    assert failed["file"].endswith(r"T\xfcr/n\xefx.jpg")
    assert client.get("/cameras").json()[0]["name"] == r"T\xfcr"
