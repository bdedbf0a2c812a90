"""The file of an SQLite database that is deleted or replaced under a service: no answer comes from another database."""

import shutil
from pathlib import Path

import httpx
import pytest

from tests.app.running import embed, found, jpeg, search, stored


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database's file."""
    return tmp_path / "test.sqlite3"


@pytest.fixture
def database_url(file: Path) -> str:
    """Only SQLite is a file."""
    return f"sqlite:///{file}"


def assert_refuses(client: httpx.Client) -> None:
    for answer in (embed(client, jpeg(2)), search(client, jpeg(1)), client.get("/crops"), client.get("/health/ready")):
        assert answer.status_code == 503
        assert "was deleted or replaced while the service ran" in answer.json()["detail"]


def test_a_deleted_file_is_missed_and_may_come_back(client: httpx.Client, file: Path) -> None:
    (crop,) = stored(client, 1)
    moved = file.rename(file.with_suffix(".away"))
    assert_refuses(client)
    assert not file.exists()
    moved.rename(file)
    assert client.get("/health/ready").status_code == 200
    assert found(client, 1) == [crop["id"]]


def test_another_file_in_its_place_is_not_used(client: httpx.Client, file: Path) -> None:
    stored(client, 1)
    copy = shutil.copy(file, file.with_suffix(".copy"))
    Path(copy).replace(file)
    assert_refuses(client)
