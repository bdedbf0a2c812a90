"""`passerby crops`, `cameras`, `status` and searches by crops, against a real service."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.reindexing import other_checkpoint, reindex, wait_until_blocked
from tests.app.running import jpeg, running_service, stored

Passerby = Callable[..., Any]


@pytest.fixture
def database_url() -> str:
    """Not used: SQLite is in the data folder."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, index_poll_seconds=0.05, batch_size=32)


@pytest.fixture
def client(client: httpx.Client, passerby: Passerby, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """A client of the service that the command line talks to, too."""
    monkeypatch.setenv("PASSERBY_URL", str(client.base_url))
    monkeypatch.setenv("COLUMNS", "80")
    return client


def lines_with(text: str, crop_id: str) -> list[str]:
    return [line for line in text.splitlines() if crop_id in line]


def test_crops_are_listed_with_filters(client: httpx.Client, passerby: Passerby) -> None:
    (one,) = stored(client, 1, camera="gate", person_id="p1", captured_at="2026-05-04T17:30:00+02:00")
    (two,) = stored(
        client, 2, camera="hall", track_id="t2", captured_at="2026-05-04T18:30:00+02:00", attributes='{"hat": true}'
    )
    ran = passerby("crops")
    assert ran.code == 0
    assert lines_with(ran.out, two["id"])[0].split() == [two["id"], "hall", "2026-05-04", "18:30:00", "t2"]
    assert lines_with(ran.out, one["id"])[0].split() == [one["id"], "gate", "2026-05-04", "17:30:00", "p1"]
    assert "2 crops" in ran.out
    for options, expected in (
        (("--camera", "gate"), one), (("--exclude-camera", "gate"), two), (("--person", "p1"), one),
        (("--track", "t2"), two), (("--attributes", '{"hat": true}'), two),
        (("--from", "2026-05-04T18:00+02:00"), two), (("--to", "2026-05-04T18:00+02:00"), one),
    ):  # fmt: skip
        listed = json.loads(passerby("crops", "--json", *options).out)
        assert listed == {"items": [expected], "next_cursor": None}, options
    assert passerby("crops", "--person", "nobody").out == "No crop.\n"


@pytest.mark.parametrize("option", ["--person", "--track", "--camera", "--exclude-camera", "--attributes"])
def test_an_empty_filter_is_refused(passerby: Passerby, option: str) -> None:
    for command in (("crops",), ("search", "--crop", "0" * 26)):
        ran = passerby(*command, option, "")
        assert (ran.code, "a filter is empty" in ran.err) == (2, True)


def test_a_list_goes_over_pages_and_ends_at_its_limit(
    client: httpx.Client, passerby: Passerby, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(client, *range(5))
    monkeypatch.setattr("app.client.gallery.CROPS_PER_PAGE", 2)
    assert len(json.loads(passerby("crops", "--json").out)["items"]) == 5
    listed = json.loads(passerby("crops", "--json", "--limit", "3").out)
    assert len({crop["id"] for crop in listed["items"]}) == 3
    assert listed["next_cursor"]
    assert "3 crops; there are more" in passerby("crops", "--limit", "3").out


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_ids_are_printed_whole_at_any_width(
    client: httpx.Client, passerby: Passerby, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "a person with quite a long name, as some sites have them"
    (crop,) = stored(client, 1, camera="c" * 64, person_id=name, track_id=name)
    (tmp_path / "person.jpg").write_bytes(jpeg(1))
    for ran in (passerby("crops"), passerby("search", tmp_path / "person.jpg")):
        (line,) = lines_with(ran.out, crop["id"])
        assert line.index(crop["id"]) + len(crop["id"]) <= 80
        assert line.count(name) == 2
        assert "c" * 64 in line


def test_a_search_by_crops_needs_no_picture(client: httpx.Client, passerby: Passerby) -> None:
    one, two, three = stored(client, 1, 2, 3)
    ran = passerby("search", "--crop", one["id"], "--crop", two["id"])
    assert ran.code == 0, ran.err
    assert lines_with(ran.out, three["id"])
    assert not lines_with(ran.out, one["id"])
    assert "has no crop" in passerby("search", "--crop", "0" * 26).err
    for arguments in ((), ("--crop", one["id"], __file__)):
        ran = passerby("search", *arguments)
        assert (ran.code, "give either pictures" in ran.err) == (2, True)


def test_a_search_saves_its_contact_sheet(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    (crop,) = stored(client, 1)
    out = tmp_path / "sheet.jpg"
    ran = passerby("search", "--crop", crop["id"], "--out", out)
    assert ran.code == 0, ran.err
    assert out.read_bytes().startswith(b"\xff\xd8")
    assert f"Contact sheet: {out}" in ran.out
    assert json.loads(passerby("search", "--crop", crop["id"], "--out", out, "--json").out)["matches"] == []
    ran = passerby("search", "--crop", crop["id"], "--out", tmp_path / "gone" / "sheet.jpg")
    assert (ran.code, "cannot write" in ran.err) == (2, True)


def listed_cameras(passerby: Passerby) -> list[dict[str, Any]]:
    """What is known of each camera, without the time when it was created."""
    cameras = json.loads(passerby("cameras", "--json").out)
    return [{name: value for name, value in camera.items() if name != "created_at"} for camera in cameras]


def test_cameras_are_listed_and_described(client: httpx.Client, passerby: Passerby) -> None:
    assert passerby("cameras").out == "No camera.\n"
    stored(client, 1, camera="gate")
    ran = passerby("cameras", "put", "gate", "--name", "North gate", "--time-zone", "Europe/Vienna")
    assert ran.code == 0, ran.err
    assert passerby("cameras", "put", "gate", "--place", "Gate 3").code == 0
    gate = {"id": "gate", "name": "North gate", "place": "Gate 3", "time_zone": "Europe/Vienna", "crops": 1}
    assert listed_cameras(passerby) == [gate]
    assert "North gate" in passerby("cameras").out
    assert passerby("cameras", "put", "gate", "--place", "").code == 0
    assert passerby("cameras", "put", "lobby").code == 0
    assert listed_cameras(passerby) == [
        gate | {"place": None},
        {"id": "lobby", "name": "lobby", "place": None, "time_zone": None, "crops": 0},
    ]
    ran = passerby("cameras", "put", "gate", "--time-zone", "Mars/Olympus")
    assert (ran.code, "must be an IANA time zone" in ran.err) == (2, True)


def test_an_import_that_names_a_camera_keeps_its_place(
    client: httpx.Client, passerby: Passerby, tmp_path: Path
) -> None:
    passerby("cameras", "put", "sud-eingang", "--place", "Gate 3", "--time-zone", "Europe/Vienna")
    (tmp_path / "crops" / "Süd Eingang").mkdir(parents=True)
    (tmp_path / "crops" / "Süd Eingang" / "1.jpg").write_bytes(jpeg(1))
    assert passerby("import", tmp_path / "crops").code == 0
    (camera,) = json.loads(passerby("cameras", "--json").out)
    assert (camera["name"], camera["place"], camera["time_zone"]) == ("Süd Eingang", "Gate 3", "Europe/Vienna")


def test_both_places_of_the_url_of_cameras_count(
    client: httpx.Client, passerby: Passerby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PASSERBY_URL")
    url = str(client.base_url)
    assert passerby("cameras", "--url", url, "put", "one").code == 0
    assert passerby("cameras", "put", "two", "--url", url).code == 0
    assert [camera["id"] for camera in json.loads(passerby("cameras", "--url", url, "--json").out)] == ["one", "two"]


def test_status_says_what_the_service_does(client: httpx.Client, passerby: Passerby) -> None:
    stored(client, 1, 2)
    ran = passerby("status")
    assert ran.code == 0, ran.err
    facts = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines()}
    assert facts["status"] == "ready"
    assert facts["model"].startswith("tiny-0123456789ab, MGN")
    assert facts["engine"] == "the CPU, with ONNX Runtime"
    assert (facts["crops"], facts["queue"], facts["reindex"]) == ("2", "0 crops", "none")


def test_status_says_how_far_a_reindex_is(client: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    stored(client, *range(20))
    for path in (tmp_path / "data" / "images").rglob("*"):
        if path.is_file():
            path.unlink()
    reindex(client, other_checkpoint(tmp_path))
    wait_until_blocked(client)
    ran = passerby("status")
    assert ran.code == 0, "the active model answers"
    assert "other-0123456789ab: 0 of 20 crops; blocked: 20 of 20 crops" in " ".join(ran.out.split())


def test_status_says_why_the_service_is_not_ready(
    passerby: Passerby, run: Callable[[Settings], httpx.Client], settings: Settings, tmp_path: Path
) -> None:
    with running_service(settings) as client:
        stored(client, *range(20))
    for lost in ("images", "checkpoints"):
        shutil.rmtree(settings.data_dir / lost)
    client = run(settings.model_copy(update={"checkpoint": other_checkpoint(tmp_path)}))
    wait_until_blocked(client)
    ran = passerby("status", "--url", str(client.base_url))
    assert ran.code == 1, ran.err
    assert "status   not ready: " in ran.out
    assert "0 of 20 crops" in ran.out


def test_status_of_no_service_is_an_error(passerby: Passerby) -> None:
    ran = passerby("status", "--url", "http://127.0.0.1:9")
    assert (ran.code, "no Passerby answers" in ran.err) == (2, True)


def test_the_version_is_printed(passerby: Passerby) -> None:
    from importlib.metadata import version

    assert passerby("--version").out == f"passerby {version('passerby')}\n"
