"""Settings: a variable that is misspelt stops the start, and no file of the project names one that would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("PASSERBY_BATCHSIZE", ": did you mean PASSERBY_BATCH_SIZE?"),
        ("PASSERBY_DATABASE", ": did you mean PASSERBY_DATABASE_URL?"),
        ("PASSERBY_API_KEYS", ": did you mean PASSERBY_API_KEY?"),
        ("passerby_thread", ": did you mean PASSERBY_THREADS?"),
        ("PASSERBY_WEATHER", ""),
        ("PASSERBY_", ""),
        (f"PASSERBY_{'X' * 10_000}", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_right_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, hint: str
) -> None:
    for value in ("1", ""):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ValidationError) as caught:
            Settings()
        shown = variable if len(variable) <= 64 else f"{variable[:64]}…"
        assert caught.value.errors()[0]["msg"] == f"Value error, there is no setting {shown}{hint}"


def test_an_unknown_variable_stops_the_start_with_one_sentence() -> None:
    command = [sys.executable, "-m", "app.cli", "serve"]
    environment = os.environ | {"PASSERBY_LOGLEVEL": "debug", "PASSERBY_PORT": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    sentence = "error: there is no setting PASSERBY_LOGLEVEL: did you mean PASSERBY_LOG_LEVEL?"
    assert (ended.stdout, ended.stderr.strip()) == ("", sentence)


def test_variables_of_the_command_line_and_of_compose_do_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "PUBLISH", "BALANCER_PUBLISH", "REPLICAS"):
        monkeypatch.setenv(f"PASSERBY_{name}", "7")
    monkeypatch.setenv("passerby_port", "9000")
    monkeypatch.setenv("PASSERBYS", "other program's")
    assert Settings().port == 9000


def test_every_variable_that_the_project_names_may_be_set() -> None:
    read = ["app", "bench", "docker", "docs", "model", "tests", "README.md", "CHANGELOG.md"]
    read += ["Dockerfile", "docker-compose.yml", ".env.example", "alembic.ini"]
    files = [file for name in read for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))]
    named = {
        variable
        for file in files
        if file.suffix in ("", ".py", ".md", ".yml", ".sh", ".ini", ".example") and file.is_file()
        if file != Path(__file__)
        for variable in re.findall(r"PASSERBY_[A-Z_]+[A-Z]", file.read_text())
    }
    assert len(named) > 20
    assert named <= Settings.variables()
