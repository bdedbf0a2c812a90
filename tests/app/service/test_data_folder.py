"""A data folder is one service's, and one user's."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.places import FolderInUse, exclusive_use
from app.settings import Settings
from tests.app.running import found, stored
from tests.app.serving import ServiceProcess

Run = Callable[[Settings], httpx.Client]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


def test_a_second_service_says_so_and_exits(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    first = ServiceProcess(settings)
    try:
        first.wait_until_ready()
        (crop,) = stored(first.client, 1)
        second = ServiceProcess(settings)
        assert second.ended() == 2
        said = capfd.readouterr().err
        assert f"another service (process {first.process.pid}) uses the data folder {settings.data_dir}" in said
        assert found(first.client, 1) == [crop["id"]]
    finally:
        first.kill()


def test_a_killed_service_leaves_no_lock(settings: Settings) -> None:
    killed = ServiceProcess(settings)
    killed.wait_until_ready()
    killed.kill()
    again = ServiceProcess(settings)
    try:
        again.wait_until_ready()
    finally:
        again.kill()


def test_the_lock_ends_with_its_use(tmp_path: Path) -> None:
    with (
        exclusive_use(tmp_path),
        pytest.raises(FolderInUse, match=f"process {os.getpid()}"),
        exclusive_use(tmp_path),
    ):
        pass
    with exclusive_use(tmp_path):
        pass


@pytest.mark.skipif(os.name != "posix", reason="other systems have no modes of files")
def test_files_and_folders_are_closed_to_other_users(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o755)
    service = ServiceProcess(settings)
    try:
        service.wait_until_ready()
        stored(service.client, 1, 2)
    finally:
        service.stop(signal.SIGTERM)
    paths = [settings.data_dir, *settings.data_dir.rglob("*")]
    assert sum(path.is_file() for path in (settings.data_dir / "images").rglob("*")) == 2
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
