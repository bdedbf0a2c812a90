"""API keys that cannot be sent or guessed too easily are refused, with how to make one."""

import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

import passerby
from app.settings import Settings

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.sh"

UNUSABLE = [
    "schlüssel-mit-umlaut",
    "two words of a secret",
    "with-a-tab\t0123456789",
    "with-an-end-0123456789\r",
    " " * 20,
]
SHORT = "only-15-letters"
GOOD = "0123456789!~%/@:"


@pytest.mark.parametrize("key", [*UNUSABLE, SHORT, ""])
def test_a_service_refuses_it(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_key=SecretStr(key))
    (fault,) = caught.value.errors()
    assert "at least 16 ASCII letters, digits and signs, without blanks" in fault["msg"]
    assert "python -c 'import secrets" in fault["msg"]
    assert not key or key not in fault["msg"]


def test_a_service_takes_a_good_one() -> None:
    key = Settings(api_key=SecretStr(GOOD)).api_key
    assert key is not None
    assert key.get_secret_value() == GOOD


@pytest.mark.parametrize("key", UNUSABLE)
def test_a_client_refuses_what_cannot_be_sent(key: str) -> None:
    with pytest.raises(passerby.ServiceError, match="PASSERBY_API_KEY is no API key"):
        passerby.AsyncClient("http://127.0.0.1:8000", key)


def started(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The container's entry point with a data folder, and a command."""
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "PASSERBY_DATA_DIR": str(folder)} | variables
    return subprocess.run(["sh", ENTRYPOINT, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def show() -> tuple[str, ...]:
    """A command that prints the key."""
    return ("sh", "-c", 'printf %s "$PASSERBY_API_KEY"')


@pytest.mark.parametrize("key", [*UNUSABLE, SHORT])
def test_a_container_refuses_a_key_in_its_file(tmp_path: Path, show: tuple[str, ...], key: str) -> None:
    (tmp_path / "api-key").write_text(f"{key}\n", newline="")
    ended = started(tmp_path, *show)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {tmp_path / 'api-key'} holds no API key of 16 or more")
    assert ended.stderr.count("\n") == 1


def test_a_container_takes_the_key_of_its_file_or_of_the_environment(tmp_path: Path, show: tuple[str, ...]) -> None:
    (tmp_path / "api-key").write_text(f"{GOOD}\n")
    assert started(tmp_path, *show).stdout == GOOD
    assert started(tmp_path, *show, PASSERBY_API_KEY="of-the-environment").stdout == "of-the-environment"


def test_a_container_that_cannot_write_says_how_to_mend_it(tmp_path: Path, show: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    ended = started(gone, "passerby", "serve")
    assert ended.returncode == 2
    assert f"cannot write into {gone}" in ended.stderr
    assert "sudo chown -R" in ended.stderr
    ended = started(gone, *show)
    assert ended.returncode == 2
    assert "no key can be written" in ended.stderr


def test_the_command_line_refuses_it_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.cli import main

    monkeypatch.setenv("PASSERBY_API_KEY", "schlüssel")
    monkeypatch.setattr("sys.argv", ["passerby", "status"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: PASSERBY_API_KEY is no API key: keys are of ASCII letters, digits and signs\n"
    )
