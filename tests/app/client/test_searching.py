"""Searching over a real socket: the request and the printed matches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Passerby = Callable[..., Any]

CROP_ID = "01jv8z6y3k9r4t2m5n7p0q1w2e"


def match(rank: int, similarity: float, **crop: Any) -> dict[str, Any]:
    known = {
        "id": CROP_ID, "camera_id": "gate", "captured_at": "2024-05-01T12:00:00+02:00", "time_guessed": False,
        "track_id": None, "person_id": None, "attributes": {}, "image_url": "/", "created_at": "2024-05-01T12:00:00Z",
    }  # fmt: skip
    return {"rank": rank, "similarity": similarity, "parts": {}, "crop": known | crop}


def image(folder: Path, name: str = "person.jpg") -> Path:
    path = folder / name
    path.write_bytes(name.encode())
    return path


def test_matches_are_shown_ranked(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    service.matches = [
        match(1, 0.912, person_id="p7"),
        match(2, -0.05, camera_id="hall", captured_at="2024-05-01T13:30:05+02:00"),
    ]
    ran = passerby("search", image(tmp_path))
    assert ran.code == 0
    heading, _, first, second = (line.split() for line in ran.out.splitlines()[:4])
    assert heading == ["rank", "similarity", "crop", "camera", "captured", "(+02:00)", "person"]
    assert [part for part in first if "━" not in part] == [
        "1", "0.912", CROP_ID, "gate", "2024-05-01", "12:00:00", "p7"
    ]  # fmt: skip
    assert [part for part in second if "━" not in part] == [
        "2", "-0.050", CROP_ID, "hall", "2024-05-01", "13:30:05"
    ]  # fmt: skip
    assert "900 of 1,200 crops compared" in ran.out
    assert f"Contact sheet: {service.url}/searches/s1/sheet.jpg" in ran.out


def test_times_of_several_zones_show_their_zone(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    service.matches = [match(1, 0.9), match(2, 0.8, captured_at="2024-05-01T12:00:00Z")]
    out = passerby("search", image(tmp_path)).out
    assert "12:00:00 +02:00" in out
    assert "12:00:00 UTC" in out


def test_a_narrow_terminal_shows_crop_ids_whole(
    passerby: Passerby, service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    service.matches = [match(1, 0.9, person_id="a-long-name-17")]
    line = passerby("search", image(tmp_path)).out.splitlines()[2]
    assert line.split() == ["1", "0.900", CROP_ID, "gate", "2024-05-01", "12:00:00", "a-long-name-17"]


def test_no_match_is_printed(passerby: Passerby, tmp_path: Path) -> None:
    assert "No match." in passerby("search", image(tmp_path)).out


def test_pictures_and_filters_are_sent(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    passerby(
        "search", image(tmp_path, "1.jpg"), image(tmp_path, "2.jpg"), "--top-k", "5",
        "--camera", "a", "--camera", "b", "--exclude-camera", "c",
        "--from", "2024-05-01T12:00:00+02:00", "--to", "2024-05-02T00:00Z",
        "--person", "p7", "--track", "t3", "--min-similarity", "0",
        "--attributes", '{"colour": "red"}', "--part-weights", '{"lower_half": 0}',
    )  # fmt: skip
    assert service.searches == [
        {
            "files": [b"1.jpg", b"2.jpg"],
            "top_k": ["5"],
            "camera_ids": ["a", "b"],
            "exclude_camera_ids": ["c"],
            "captured_from": ["2024-05-01T12:00:00+02:00"],
            "captured_to": ["2024-05-02T00:00:00+00:00"],
            "person_id": ["p7"],
            "track_id": ["t3"],
            "min_similarity": ["0.0"],
            "attributes": ['{"colour": "red"}'],
            "part_weights": ['{"lower_half": 0}'],
        }
    ]


def test_unset_options_are_not_sent(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    passerby("search", image(tmp_path))
    assert service.searches == [{"files": [b"person.jpg"], "top_k": ["20"]}]


def test_json_is_the_answer_with_the_fields_that_this_version_knows(
    passerby: Passerby, service: Any, tmp_path: Path
) -> None:
    service.matches = [match(1, 0.912345)]
    answer = json.loads(passerby("search", image(tmp_path), "--json").out)
    assert answer["matches"] == service.matches
    assert (answer["compared"], answer["sheet_url"]) == (900, "/searches/s1/sheet.jpg")
    assert "news" not in answer


def test_a_problem_is_printed_with_its_detail(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    ran = passerby("search", image(tmp_path), "--camera", "nowhere")
    assert ran.code == 2
    assert ran.err == f"error: {service.url} answered 422: there is no camera 'nowhere'\n"


def test_another_kind_of_server_is_recognised(passerby: Passerby, service: Any, tmp_path: Path) -> None:
    ran = passerby("search", image(tmp_path), "--url", f"{service.url}/elsewhere")
    assert ran.code == 2
    assert "answered 404; is it a Passerby?" in ran.err


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://[::1"])
def test_an_invalid_url_is_an_error(passerby: Passerby, tmp_path: Path, url: str) -> None:
    ran = passerby("search", image(tmp_path), "--url", url)
    assert ran.code == 2
    assert "is no URL of a service" in ran.err


def test_a_missing_picture_is_named(passerby: Passerby, tmp_path: Path) -> None:
    ran = passerby("search", tmp_path / "gone.jpg")
    assert ran.code == 2
    assert "gone.jpg" in ran.err
