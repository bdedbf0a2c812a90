"""A full disk: nothing is stored, the service says so, and deletions make room."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from psycopg.errors import DiskFull
from sqlalchemy.exc import OperationalError

from app.gallery.images import ImageStore
from app.settings import Settings
from tests.app.running import embed, found, jpeg, running_service, stored


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB for the data folder."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """In the data folder, which the fixture `disk` makes a small disk."""
    (tmp_path / "data").mkdir(exist_ok=True)
    return f"sqlite:///{tmp_path / 'data' / 'test.sqlite3'}"


def fill(disk: Path) -> Path:
    """Write a file that leaves no room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OperationalError("INSERT", {}, DiskFull("could not extend file")),
    ],
    ids=["disk", "quota", "PostgreSQL"],
)
def test_each_form_of_a_full_disk_is_507(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ImageStore, "put", fail)
    answer = embed(client, jpeg(1))
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:passerby:problem:disk-full")
    assert client.get("/crops").json()["items"] == []


def test_nothing_is_stored_and_deletions_make_room(disk: Path, client: httpx.Client, settings: Settings) -> None:
    crops = stored(client, *range(10))
    filler = fill(disk)
    answer = embed(client, jpeg(20))
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:passerby:problem:disk-full")
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert f"the disk of {settings.data_dir} is full" in ready.json()["detail"]
    assert client.delete(f"/crops/{crops[0]['id']}").status_code == 204
    assert client.delete("/crops", params={"camera_ids": "gate"}).json()["deleted"] == 9
    filler.unlink()
    assert client.get("/health/ready").status_code == 200
    (crop,) = stored(client, 20)
    assert found(client, 20) == [crop["id"]]
    assert (disk / "passerby.reserve").exists()


def test_a_service_starts_where_only_what_can_be_rebuilt_is_on_a_full_disk(
    disk: Path, run: Callable[[Settings], httpx.Client], settings: Settings, tmp_path: Path
) -> None:
    elsewhere = {"database_url": f"sqlite:///{tmp_path / 'other.sqlite3'}", "images_url": str(tmp_path / "images")}
    safe = settings.model_copy(update=elsewhere)
    with running_service(safe) as before:
        stored(before, 2)
    fill(disk)
    client = run(safe)
    assert client.get("/health/ready").status_code == 200
    (crop,) = stored(client, 1)
    assert found(client, 1, top_k=1) == [crop["id"]]
