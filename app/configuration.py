"""Reads the service's settings: command line over environment over `.env` over a TOML file."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError

from app.kit.names import did_you_mean, shown
from app.settings import PREFIX, Settings

DOTENV = Path(".env")
TOML = Path("passerby.toml")


class SettingsError(Exception):
    """The settings cannot be used; the message names the setting, where it is, and what it should be."""


def read_settings(given: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The settings of a service. Raises SettingsError.

    given: those of the command line, by field. config: a TOML file; by default `passerby.toml` in the working folder,
    if it is there. `.env` in the working folder may hold variables of other programs, too.
    """
    toml = _toml(config or TOML, required=config is not None)
    dotenv = _dotenv(DOTENV)
    environment = {name.upper() for name, value in os.environ.items() if value}
    files = {name: value for name, value in {**toml, **dotenv}.items() if f"{PREFIX}{name.upper()}" not in environment}
    try:
        return Settings(**{**files, **given})
    except ValidationError as error:
        places = {name: f"{name} in {config or TOML}" for name in toml}
        places |= {name: f"{PREFIX}{name.upper()} in {DOTENV}" for name in dotenv}
        places = {name: place for name, place in places.items() if name in files.keys() - given.keys()}
        raise SettingsError("; ".join(_sentence(fault, places) for fault in error.errors())) from error


def _sentence(fault: Any, places: Mapping[str, str]) -> str:
    """A fault that pydantic found, with the place of the setting; its value, which may be secret, is left out."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = "_".join(map(str, fault["loc"]))
    return f"{places.get(name, f'{PREFIX}{name.upper()}')}: {message}"


def _toml(path: Path, required: bool) -> Mapping[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML file: {error}") from error
    _check_known(content, Settings.model_fields, path)
    return content


def _dotenv(path: Path) -> Mapping[str, str]:
    """The settings of a file of variables; empty ones are left out, as in the environment."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            wrong = [binding.original for binding in parse_stream(file) if binding.error]
        values = dotenv_values(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not encoded in UTF-8: {error}") from error
    for original in wrong:
        if PREFIX in original.string.upper():
            raise SettingsError(f"{path}, line {original.line}: write NAME=VALUE, and blanks within quotes")
    own = {name.upper(): value for name, value in values.items() if name.upper().startswith(PREFIX)}
    _check_known(own, Settings.variables(), path, PREFIX)
    known = {name.removeprefix(PREFIX).lower(): value for name, value in own.items() if value}
    return {name: value for name, value in known.items() if name in Settings.model_fields}


def _check_known(names: Iterable[str], known: Iterable[str], path: Path, prefix: str = "") -> None:
    for name in names:
        if name not in known:
            raise SettingsError(f"{path}: there is no setting {shown(name)}{did_you_mean(name, known, prefix)}")
