"""`passerby delete`, `cameras delete` and `label` against a real service."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.running import stored

Passerby = Callable[..., Any]


@pytest.fixture
def database_url() -> str:
    """Not used: SQLite is in the data folder."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, batch_size=32)


@pytest.fixture
def client(client: httpx.Client, passerby: Passerby, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """A client of the service that the command line talks to, too."""
    monkeypatch.setenv("PASSERBY_URL", str(client.base_url))
    return client


@pytest.fixture
def crops(client: httpx.Client) -> list[dict[str, Any]]:
    """Three crops of one person, two by the gate and one by the hall."""
    return stored(client, 1, 2, camera="gate", person_id="p1") + stored(client, 3, camera="hall", person_id="p1")


def left(client: httpx.Client) -> set[str]:
    return {crop["id"] for crop in client.get("/crops").json()["items"]}


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_dry_run_counts_and_deletes_nothing(
    client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]]
) -> None:
    ran = passerby("delete", "--camera", "gate", "--dry-run")
    assert (ran.code, ran.out) == (0, "matching: 2 crops\n")
    assert len(left(client)) == 3


def test_crops_are_deleted_by_filters_and_ids_after_a_yes(
    client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (crop["id"] for crop in crops)
    answer(monkeypatch, "n\n")
    assert passerby("delete", "--person", "p1").out.endswith("Nothing was deleted.\n")
    assert len(left(client)) == 3
    answer(monkeypatch, "y\n")
    assert passerby("delete", one, three, "--camera", "gate").out.endswith("deleted: 1 crop\n")
    assert left(client) == {two, three}
    assert passerby("delete", "--person", "p1", "--yes").out == "matching: 2 crops\ndeleted: 2 crops\n"
    assert left(client) == set()


def test_without_an_answer_nothing_is_deleted(
    client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "")
    assert passerby("delete", "--person", "p1").code == 1
    assert len(left(client)) == 3


def test_a_camera_is_deleted_with_its_crops(
    client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]]
) -> None:
    assert passerby("cameras", "delete", "gate", "--dry-run").out == "matching: 2 crops\n"
    assert passerby("cameras", "delete", "gate", "--yes").out == "matching: 2 crops\ndeleted: 2 crops\n"
    assert left(client) == {crops[2]["id"]}
    assert [camera["id"] for camera in client.get("/cameras").json()] == ["hall"]


def test_labels_are_set_and_cleared(client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]]) -> None:
    one, two, three = (crop["id"] for crop in crops)
    ran = passerby("label", one, two, "--set-person", "anna", "--set-attributes", '{"hat": true}', "--dry-run")
    assert (ran.code, ran.out) == (0, "matching: 2 crops, of which 2 would change\n")
    ran = passerby("label", one, two, "--set-person", "anna", "--set-attributes", '{"hat": true}')
    assert ran.out == "matching: 2 crops, of which 2 changed\n"
    assert passerby("label", "--camera", "hall", "--set-person", "", "--set-track", "t1").code == 0
    labels = {crop["id"]: (crop["person_id"], crop["track_id"], crop["attributes"]) for crop in crops}
    changed = {
        crop["id"]: (crop["person_id"], crop["track_id"], crop["attributes"])
        for crop in client.get("/crops").json()["items"]
    }
    assert labels[one] == ("p1", None, {})
    assert changed == {
        one: ("anna", None, {"hat": True}),
        two: ("anna", None, {"hat": True}),
        three: (None, "t1", {}),
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("delete",), "say which crops"),
        (("delete", "--yes", "--person", ""), "a filter is empty"),
        (("label", "--set-person", "x"), "say which crops"),
        (("label", "--person", "x"), "say what to set"),
        (("label", "--person", "x", "--set-attributes", "red"), "is no JSON object"),
        (("label", "--person", "x", "--set-attributes", "[1]"), "is no JSON object"),
        (("delete", "nonsense", "--yes"), "422"),
        (("cameras", "delete", "nowhere", "--yes"), "404"),
    ],
)
def test_mistakes_are_one_sentence(
    client: httpx.Client, passerby: Passerby, crops: list[dict[str, Any]], arguments: tuple[str, ...], sentence: str
) -> None:
    ran = passerby(*arguments)
    assert (ran.code, sentence in ran.err) == (2, True), ran.err
    assert len(left(client)) == 3
