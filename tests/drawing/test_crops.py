"""The drawn gallery: its plan, its files, that people in it differ, and that it is the shipped one."""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from drawing.crops import DrawnCrop, draw_crops, write_crops
from drawing.wardrobe import dress_people
from model.datasets.market1501 import market_name
from model.datasets.synthetic import DRAWN_PEOPLE, MANIFEST, Synthetic

PEOPLE = 8
CAMERAS = 3
CROPS = 2


@pytest.fixture(scope="module")
def crops() -> tuple[DrawnCrop, ...]:
    return tuple(draw_crops(PEOPLE, CAMERAS, CROPS, seed=1))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    assert write_crops(folder, people=4, cameras=2, crops_per_visit=2, seed=1) == 4 * 2 * 2
    return folder


def tracks(crops: Sequence[DrawnCrop]) -> dict[int, list[DrawnCrop]]:
    found: dict[int, list[DrawnCrop]] = defaultdict(list)
    for crop in crops:
        found[crop.track].append(crop)
    return found


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / MANIFEST).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_person_is_seen_by_two_cameras_or_more_and_once_by_each(crops: tuple[DrawnCrop, ...]) -> None:
    visited: dict[int, list[int]] = defaultdict(list)
    for track in tracks(crops).values():
        visited[track[0].pid].append(track[0].camera)
    assert sorted(visited) == list(range(1, PEOPLE + 1))
    assert all(2 <= len(cameras) <= CAMERAS for cameras in visited.values())
    assert all(len(cameras) == len(set(cameras)) for cameras in visited.values())


def test_a_track_shows_one_person_and_one_camera(crops: tuple[DrawnCrop, ...]) -> None:
    for track in tracks(crops).values():
        assert len(track) == CROPS
        assert len({(crop.pid, crop.camera, crop.camera_id) for crop in track}) == 1


def test_a_camera_has_one_slug_and_a_slug_one_camera(crops: tuple[DrawnCrop, ...]) -> None:
    pairs = {(crop.camera, crop.camera_id) for crop in crops}
    assert len(pairs) == len({camera for camera, _ in pairs}) == len({slug for _, slug in pairs}) == CAMERAS
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) for _, slug in pairs)


def test_a_person_walks_between_cameras_for_minutes(crops: tuple[DrawnCrop, ...]) -> None:
    by_person: dict[int, list[DrawnCrop]] = defaultdict(list)
    for crop in crops:
        assert crop.captured_at.utcoffset() is not None
        by_person[crop.pid].append(crop)
    for own in by_person.values():
        for before, after in pairwise(sorted(own, key=lambda crop: crop.captured_at)):
            apart = after.captured_at - before.captured_at
            if before.track == after.track:
                assert timedelta(0) < apart < timedelta(seconds=3)
            else:
                assert timedelta(seconds=30) < apart < timedelta(minutes=6)


def test_tracks_are_numbered_chronologically(crops: tuple[DrawnCrop, ...]) -> None:
    begins = [track[0].captured_at for _, track in sorted(tracks(crops).items())]
    assert begins == sorted(begins)
    assert sorted(tracks(crops)) == list(range(1, len(begins) + 1))


def test_crops_have_one_size_and_are_not_uniform(crops: tuple[DrawnCrop, ...]) -> None:
    assert {(crop.picture.mode, crop.picture.size) for crop in crops} == {("RGB", (80, 160))}
    assert min(np.asarray(crop.picture).std() for crop in crops) > 12
    assert len({crop.picture.tobytes() for crop in crops}) == len(crops)


def test_people_are_recognised_by_their_clothes_across_cameras(crops: tuple[DrawnCrop, ...]) -> None:
    """By nothing but the mean colours of torso and legs: far from perfect, far above the chance of one in eight."""
    looks = np.array([clothes(crop.picture) for crop in crops])
    cameras = np.array([crop.camera for crop in crops])
    for camera in range(1, CAMERAS + 1):
        looks[cameras == camera] -= looks[cameras == camera].mean(axis=0)
    pids = np.array([crop.pid for crop in crops])
    distance = np.linalg.norm(looks[:, None] - looks[None, :], axis=2)
    distance[cameras[:, None] == cameras[None, :]] = np.inf
    assert (pids[distance.argmin(axis=1)] == pids).mean() > 0.5


def clothes(picture: Image.Image) -> NDArray[np.float64]:
    pixels = np.asarray(picture, dtype=np.float64)
    return np.concatenate([pixels[rows, 32:48].mean(axis=(0, 1)) for rows in (slice(40, 70), slice(85, 120))])


def test_people_dress_differently_but_some_look_alike() -> None:
    people = dress_people(40, np.random.default_rng(5))
    assert len({person.outfit for person in people}) == 40
    uppers = [(p.outfit.cut, p.outfit.pattern, p.outfit.upper, p.outfit.second) for p in people]
    assert len(set(uppers)) <= 40 - 3


def test_the_seed_determines_the_written_bytes(written: Path, tmp_path: Path) -> None:
    write_crops(tmp_path / "again", people=4, cameras=2, crops_per_visit=2, seed=1)
    write_crops(tmp_path / "other", people=2, cameras=2, crops_per_visit=1, seed=2)
    assert files(tmp_path / "again") == files(written)
    assert not set(files(tmp_path / "other").values()) & set(files(written).values())


def test_the_manifest_lists_every_picture_and_agrees_with_its_name(written: Path) -> None:
    rows = manifest(written)
    assert list(rows[0]) == ["file", "camera_id", "captured_at", "track_id", "person_id"]
    assert {row["file"] for row in rows} == set(files(written)) - {MANIFEST}
    for row in rows:
        folder, name = row["file"].split("/")
        named = market_name(name)
        assert named is not None
        assert (folder, named[1]) == (row["camera_id"], row["person_id"])
        assert datetime.fromisoformat(row["captured_at"]).utcoffset() is not None
        assert row["track_id"].startswith(row["camera_id"])


def test_a_written_folder_is_a_data_set(written: Path) -> None:
    samples = Synthetic(written).train()
    assert {sample.pid for sample in samples} == {1, 2, 3, 4}
    assert {sample.camera for sample in samples} == {1, 2}


def test_drawing_again_gives_the_shipped_crops(tmp_path: Path) -> None:
    """`python -m drawing model/datasets/drawn` made them; another JPEG library may round pixels differently."""
    write_crops(tmp_path)
    assert manifest(tmp_path) == manifest(DRAWN_PEOPLE)
    assert set(files(tmp_path)) == set(files(DRAWN_PEOPLE))
    for row in manifest(tmp_path):
        again, shipped = (pixels(folder / row["file"]) for folder in (tmp_path, DRAWN_PEOPLE))
        assert again.shape == shipped.shape
        assert np.abs(again - shipped).mean() < 1, row["file"]


def pixels(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int16)


@pytest.mark.parametrize("numbers", [(0, 4, 3), (10_000, 4, 3), (5, 1, 3), (5, 9, 3), (5, 4, 0)])
def test_numbers_out_of_range_are_refused_immediately(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        draw_crops(*numbers)


def test_a_single_person_can_visit_all_cameras() -> None:
    seen = list(draw_crops(people=1, cameras=8, crops_per_visit=1, seed=3))
    assert len({crop.camera_id for crop in seen}) == len(seen) >= 2
