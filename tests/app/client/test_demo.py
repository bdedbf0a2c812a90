"""The demo's query, and its isolation from other services."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.client.demo import choose_trial
from app.client.sources import SourceItem
from tests.app.factories import picture


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


def test_nothing_to_check_is_an_error_before_anything_starts(passerby: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / "1.jpg").write_bytes(b"")
    ran = passerby("demo", "--data", tmp_path, "--check")
    assert ran.code == 2
    assert "has no person whom two cameras saw" in ran.err


def start_demo(crops: Path, checkpoint: Path, temporary: Path, *options: str) -> subprocess.Popen[str]:
    temporary.mkdir()
    (temporary.parent / ".env").write_text("PASSERBY_DATABASE_URL=postgresql://nowhere/gallery")  # neither
    foreign = {
        "PASSERBY_API_KEY": "a-key-of-another-service",
        "PASSERBY_DATABASE_URL": "postgresql://nowhere/gallery",
    }  # not for the demo
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "demo", "--data", str(crops), *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=temporary.parent,
        env=os.environ | foreign | {"PASSERBY_CHECKPOINT": str(checkpoint), "TMPDIR": str(temporary)},
    )


def write_gallery(folder: Path, shown_to_second_camera: int) -> Path:
    """Two crops of person p0 by camera a, and six crops by camera b with the persons p0 to p5."""
    lines = ["file,camera_id,captured_at,person_id"]
    for number, (camera, person, shown) in enumerate(
        [("a", 0, 0), ("a", 0, 0), ("b", 0, shown_to_second_camera), *(("b", i, i) for i in range(1, 6))]
    ):
        (folder / camera).mkdir(parents=True, exist_ok=True)
        picture(seed=shown).save(folder / camera / f"{number}.jpg", quality=90 - number)
        lines.append(f"{camera}/{number}.jpg,{camera},2024-05-01T12:00:0{number}Z,p{person}")
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("shown", "code", "verdict"), [(0, 0, "p0, is first"), (9, 1, "p0, is not first")])
def test_the_demo_checks_that_the_querys_person_is_first_at_another_camera(
    tmp_path: Path, tiny_checkpoint: Path, shown: int, code: int, verdict: str
) -> None:
    crops = write_gallery(tmp_path / "crops", shown_to_second_camera=shown)
    demo = start_demo(crops, tiny_checkpoint, tmp_path / "temporary", "--check")
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == code
    assert verdict in out
    assert "it embeds on the CPU, with ONNX Runtime" in out
    assert "6 of 7 crops compared" in out
    assert not list((tmp_path / "temporary").glob("passerby-*"))


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_the_demo_stays_up_until_it_is_stopped_and_leaves_nothing_behind(tmp_path: Path, tiny_checkpoint: Path) -> None:
    crops = write_gallery(tmp_path / "crops", shown_to_second_camera=0)
    demo = start_demo(crops, tiny_checkpoint, tmp_path / "temporary")
    assert demo.stdout
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if "Ctrl-C stops it" in line:
            break
    sheet = next(line for line in lines if line.startswith("Contact sheet: ")).removeprefix("Contact sheet: ").strip()
    with urllib.request.urlopen(sheet) as response:
        assert response.headers["Content-Type"] == "image/jpeg"
    demo.send_signal(signal.SIGTERM)
    rest, _ = demo.communicate(timeout=120)
    assert (demo.returncode, rest) == (0, "Stopped\n")
    assert not list((tmp_path / "temporary").glob("passerby-*"))
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(sheet)
