"""Settings from the command line, the environment, `.env` and a TOML file."""

from pathlib import Path

import pytest

from app.configuration import SettingsError, read_settings
from app.settings import PREFIX


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_line_goes_before_the_environment_before_dotenv_before_toml(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_settings({}).port == 8000
    (folder / "passerby.toml").write_text('port = 1\nmax_files = 1\nlog_format = "json"')
    assert read_settings({}).port == 1
    (folder / ".env").write_text("PASSERBY_PORT=2\nPASSERBY_MAX_FILES=2\npasserby_min_side=20\n")
    assert read_settings({}).port == 2
    monkeypatch.setenv("passerby_port", "3")
    assert read_settings({}).port == 3
    settings = read_settings({"port": 4})
    assert (settings.port, settings.max_files, settings.min_side, settings.log_format) == (4, 2, 20, "json")


def test_empty_variables_count_as_not_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "passerby.toml").write_text("port = 1")
    (folder / ".env").write_text("PASSERBY_PORT=\nPASSERBY_API_KEY=\n")
    monkeypatch.setenv("PASSERBY_PORT", "")
    assert (read_settings({}).port, read_settings({}).api_key) == (1, None)


def test_a_file_that_is_named_takes_the_place_of_the_one_in_the_working_folder(folder: Path) -> None:
    (folder / "passerby.toml").write_text("port = 1")
    (folder / "other.toml").write_text("max_files = 2")
    settings = read_settings({}, Path("other.toml"))
    assert (settings.port, settings.max_files) == (8000, 2)


def test_names_of_other_programs_and_of_compose_are_ignored_in_dotenv(folder: Path) -> None:
    (folder / ".env").write_text(
        "POSTGRES_PASSWORD=x\nMILVUS_IMAGE=y\nno pair at all\nPASSERBY_PUBLISH=1:1\nPASSERBY_PORT=9000\n"
    )
    assert read_settings({}).port == 9000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (".env", f"{PREFIX}PROT=1", f".env: there is no setting {PREFIX}PROT: did you mean PASSERBY_PORT?"),
        ("passerby.toml", "prot = 1", "passerby.toml: there is no setting prot: did you mean port?"),
        ("passerby.toml", "[passerby]\nport = 1", "passerby.toml: there is no setting passerby"),
        (".env", "A=1\nPASSERBY_PORT 1", ".env, line 2: write NAME=VALUE, and blanks within quotes"),
        (".env", "PASSERBY_PORT=x", "PASSERBY_PORT in .env: Input should be a valid integer"),
        ("passerby.toml", 'port = "x"', "port in passerby.toml: Input should be a valid integer"),
        ("passerby.toml", 'api_key = "short"', "api_key in passerby.toml: must be at least 16 ASCII letters"),
        ("passerby.toml", "port = ", "passerby.toml is no TOML file: "),
        ("passerby.toml", b"port = 1 # \xff", "passerby.toml is no TOML file: "),
        (".env", b"PASSERBY_PORT=\xff", ".env is not encoded in UTF-8: "),
        ("passerby.toml", None, "cannot read the settings in passerby.toml: Is a directory"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(
    folder: Path, name: str, content: str | bytes | None, sentence: str
) -> None:
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        read_settings({})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_on_the_command_line_is_not_blamed_on_a_file(folder: Path) -> None:
    (folder / "passerby.toml").write_text("port = 1")
    with pytest.raises(SettingsError, match=r"^PASSERBY_PORT: "):
        read_settings({"port": "x"})


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings in gone\.toml: No such file or directory"):
        read_settings({}, Path("gone.toml"))
