"""What the demo asks for, and that it never meets another service."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.client.demo import choose_trial
from app.client.sources import SourceItem


def item(name: str, camera: str, person: str | None = None) -> SourceItem:
    return SourceItem(Path(name), camera, datetime(2024, 1, 1, tzinfo=UTC), person_id=person)


def test_the_query_shows_the_person_whom_most_cameras_saw() -> None:
    items = [item("1", "a"), item("2", "a", "x"), item("3", "b", "y"), item("4", "a", "y"), item("5", "b", "z")]
    trial = choose_trial(items)
    assert trial.query is items[2]
    assert trial.gallery == (*items[:2], *items[3:])
    assert trial.exclude_camera_ids == ("b",)
    assert trial.seen_elsewhere == ("a",)


def test_without_persons_the_first_crop_is_the_query() -> None:
    trial = choose_trial([item("1", "a"), item("2", "a"), item("3", "b")])
    assert trial.query.path == Path("1")
    assert trial.exclude_camera_ids == ("a",)
    assert trial.seen_elsewhere == ()


def test_a_camera_is_left_out_only_where_that_leaves_something_and_the_gallery_knows_it() -> None:
    assert choose_trial([item("1", "a"), item("2", "a")]).exclude_camera_ids == ()
    assert choose_trial([item("1", "a"), item("2", "b"), item("3", "c")]).exclude_camera_ids == ()


def test_a_port_that_is_in_use_is_refused(passerby: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / "1.jpg").write_bytes(b"")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = passerby("demo", "--data", tmp_path, "--port", str(port))
    assert ran.code == 2
    assert f"port {port} is in use" in ran.err


def test_nothing_to_check_is_said_before_anything_starts(passerby: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / "1.jpg").write_bytes(b"")
    ran = passerby("demo", "--data", tmp_path, "--check")
    assert ran.code == 2
    assert "names no person whom two cameras saw" in ran.err
