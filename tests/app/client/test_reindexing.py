"""`passerby reindex` against a real service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.reindexing import active_model, other_checkpoint, progress, reindex, wait_until, wait_until_blocked
from tests.app.running import stored

Passerby = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, index_poll_seconds=0.05, batch_size=32)


@pytest.fixture
def client(client: httpx.Client, passerby: Passerby, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """A client of the service that the command line talks to, too."""
    monkeypatch.setenv("PASSERBY_URL", str(client.base_url))
    return client


def test_it_ends_when_the_other_model_is_active(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    stored(client, *range(10))
    ran = passerby("reindex", "--model", other_checkpoint(tmp_path))
    assert ran.code == 0, ran.err
    assert active_model(client) == "other"
    assert "other-0123456789ab is the active model." in ran.out
    again = passerby("reindex", "--model", other_checkpoint(tmp_path))
    assert (again.code, again.out) == (0, "other-0123456789ab is already the active model.\n")


def test_a_previous_model_is_given_by_its_id(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    stored(client, *range(3))
    old = progress(client)["active_model_id"]
    passerby("reindex", "--model", other_checkpoint(tmp_path))
    assert passerby("reindex", "--model", old).code == 0
    assert active_model(client) == "tiny"


def test_an_error_is_one_sentence(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"damaged")
    for arguments, sentence in (
        (("--model", damaged), "damaged.onnx is no ONNX file"),
        (("--model", tmp_path / "nothing.onnx"), "cannot read"),
        (("--model", "nobody"), "there is no model nobody"),
        (("--cancel",), "no reindex is running"),
        ((), "give either --model MODEL or --cancel"),
    ):
        ran = passerby("reindex", *arguments)
        assert ran.code == 2
        assert sentence in ran.err, ran.err


def test_it_reports_a_blocked_switch_and_can_cancel_it(
    client: httpx.Client, passerby: Passerby, tmp_path: Path
) -> None:
    stored(client, *range(20))
    for path in (tmp_path / "data" / "images").rglob("*"):
        if path.is_file():
            path.unlink()
    reindex(client, other_checkpoint(tmp_path))
    wait_until_blocked(client)
    ran = passerby("reindex", "--model", other_checkpoint(tmp_path))
    assert ran.code == 1
    assert "is blocked: 20 of 20 crops" in ran.out
    assert passerby("reindex", "--cancel").code == 0
    wait_until(client, "idle")
    assert active_model(client) == "tiny"


def test_lost_crops_are_listed(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    (crop,) = stored(client, 1)
    (picture,) = (path for path in (tmp_path / "data" / "images").rglob("*") if path.is_file())
    picture.unlink()
    ran = passerby("reindex", "--model", other_checkpoint(tmp_path))
    assert ran.code == 1
    assert f"{crop['id']}: its picture is gone" in ran.out
    assert active_model(client) == "other"
