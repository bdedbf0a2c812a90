"""Drawn crops of invented persons who walk past several cameras, and writing them to files."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from drawing.cameras import CAMERAS
from drawing.fabrics import Colour
from drawing.photograph import Box, Companion, Obstacle, Shot, Stand, photograph
from drawing.pose import Gesture, Pose
from drawing.wardrobe import Person, dress_people
from model.datasets.synthetic import MANIFEST

_START = datetime(2026, 3, 16, 7, 30, tzinfo=UTC)
_FRAME_RATE = 25
_FRAME = timedelta(seconds=1) / _FRAME_RATE
_COLUMNS = ("file", "camera_id", "captured_at", "track_id", "person_id")
_JPEG_QUALITY = 92

_HEADINGS = (0.0, np.pi, np.pi / 2, -np.pi / 2, 0.7, -0.7, np.pi - 0.7, np.pi + 0.7)
_HEADING_SHARES = (0.2, 0.16, 0.12, 0.12, 0.1, 0.1, 0.1, 0.1)
_GESTURES: tuple[Gesture, ...] = ("swing", "phone", "pockets", "folded")
_GESTURE_SHARES = (0.74, 0.12, 0.08, 0.06)


@dataclass(frozen=True)
class DrawnCrop:
    """One drawn crop. pid and camera count from 1; track: the number of the visit, in chronological order."""

    pid: int
    camera: int
    camera_id: str
    captured_at: datetime
    track: int
    picture: Image.Image


@dataclass(frozen=True)
class _Visit:
    """One person's walk past one camera. frames: the frame numbers of its crops."""

    pid: int
    camera: int
    frames: tuple[int, ...]


def draw_crops(people: int = 40, cameras: int = 4, crops_per_visit: int = 3, seed: int = 0) -> Iterator[DrawnCrop]:
    """Draw crops of `people` persons in chronological order, deterministically.

    Every person visits 2 to `cameras` cameras once; a visit is one track of `crops_per_visit` crops. Raises ValueError
    for arguments out of range.
    """
    if not 1 <= people <= 9999:
        raise ValueError(f"people is {people}; it must be from 1 to 9999")
    if not 2 <= cameras <= len(CAMERAS):
        raise ValueError(f"cameras is {cameras}; it must be from 2 to {len(CAMERAS)}")
    if crops_per_visit < 1:
        raise ValueError(f"crops_per_visit is {crops_per_visit}; it must be 1 or more")
    return _crops(people, cameras, crops_per_visit, seed)


def write_crops(folder: Path, people: int = 40, cameras: int = 4, crops_per_visit: int = 3, seed: int = 0) -> int:
    """Write the crops of `draw_crops` into a folder per camera, and a manifest; returns the number of crops.

    The names are Market-1501's (`0002_c1s1_000451_01.jpg`: person, camera, frame, crop of the track). The manifest has
    the columns file, camera_id, captured_at, track_id and person_id. Raises ValueError like `draw_crops`.
    """
    crops = draw_crops(people, cameras, crops_per_visit, seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    crops_of_track = Counter[int]()
    for crop in crops:
        crops_of_track[crop.track] += 1
        frame = (crop.captured_at - _START) // _FRAME
        name = f"{crop.pid:04d}_c{crop.camera}s1_{frame:06d}_{crops_of_track[crop.track]:02d}.jpg"
        path = folder / crop.camera_id / name
        path.parent.mkdir(exist_ok=True)
        crop.picture.save(path, "JPEG", quality=_JPEG_QUALITY)
        track = f"{crop.camera_id}-{crop.track:04d}"
        captured_at = crop.captured_at.isoformat()
        rows.append((f"{crop.camera_id}/{name}", crop.camera_id, captured_at, track, f"{crop.pid:04d}"))
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    return len(rows)


def _crops(people: int, cameras: int, crops_per_visit: int, seed: int) -> Iterator[DrawnCrop]:
    persons = dress_people(people, np.random.default_rng((seed, 0)))
    empty = [_empty_frame(camera, seed) for camera in range(1, cameras + 1)]
    visits = [
        visit
        for pid in range(1, people + 1)
        for visit in _walk(pid, cameras, crops_per_visit, np.random.default_rng((seed, 1, pid)))
    ]
    visits.sort(key=lambda visit: (visit.frames, visit.pid))
    for track, visit in enumerate(visits, start=1):
        rng = np.random.default_rng((seed, 2, visit.pid, visit.camera))
        camera = CAMERAS[visit.camera - 1]
        exposure = float(np.clip(rng.normal(1, 0.05), 0.88, 1.12))
        shots = _shots(persons, visit.pid, len(visit.frames), rng)
        for frame, shot in zip(visit.frames, shots, strict=True):
            picture = photograph(shot, camera, empty[visit.camera - 1], exposure, rng)
            yield DrawnCrop(visit.pid, visit.camera, camera.id, _START + frame * _FRAME, track, picture)


def _empty_frame(camera: int, seed: int) -> Image.Image:
    settings = CAMERAS[camera - 1]
    frame = settings.scene(settings.palette, np.random.default_rng((seed, 3, camera)))
    return Image.fromarray((frame * 255).astype(np.uint8))


def _walk(pid: int, cameras: int, crops_per_visit: int, rng: np.random.Generator) -> list[_Visit]:
    """A person's visits to some of the cameras in sequence, with minutes of walking between them."""
    path = rng.permutation(cameras)[: int(rng.integers(2, cameras + 1))]
    seconds = float(rng.uniform(0, 90 * 60))
    visits = []
    for camera in path:
        times = seconds + np.cumsum(rng.uniform(0.4, 1.4, crops_per_visit))
        visits.append(_Visit(pid, int(camera) + 1, tuple(int(t * _FRAME_RATE) for t in times)))
        seconds = float(times[-1] + rng.uniform(40, 260))
    return visits


def _shots(people: Sequence[Person], pid: int, count: int, rng: np.random.Generator) -> Iterator[Shot]:
    """The shots of one visit: the person walks in one direction; boxes, companions and obstacles vary."""
    yaw = float(rng.choice(_HEADINGS, p=_HEADING_SHARES) + rng.normal(0, 0.2))
    z = float(rng.uniform(7.0, 12.0))
    x = float(rng.uniform(-0.4, 0.4) * z)
    phase = float(rng.uniform(0, 2 * np.pi))
    stride = float(rng.uniform(0.34, 0.48)) if rng.random() < 0.9 else 0.04
    gesture = _GESTURES[int(rng.choice(len(_GESTURES), p=_GESTURE_SHARES))]
    for _ in range(count):
        pose = Pose(phase, stride, float(rng.normal(0, 0.25)), gesture)
        yield Shot(
            person=people[pid - 1],
            stand=Stand(x, z, yaw + float(rng.normal(0, 0.08)), pose),
            box=_box(rng),
            companion=_companion(people, pid, rng) if rng.random() < 0.08 else None,
            obstacle=_obstacle(rng) if rng.random() < 0.08 else None,
            motion=int(rng.integers(3, 7)) if rng.random() < 0.12 else 0,
        )
        distance = 0.9 * stride / 0.4
        x, z = x + distance * float(np.sin(yaw)), float(np.clip(z - distance * np.cos(yaw), 6.0, 13.0))
        phase += float(rng.uniform(0.8, 2.4))


def _box(rng: np.random.Generator) -> Box:
    """A box around the whole person; one in 14 cuts off the feet, one in 14 is far too large."""
    kind = rng.random()
    feet_x = 0.5 + float(rng.normal(0, 0.03))
    if kind < 1 / 14:
        return Box(float(rng.uniform(0.96, 1.04)), feet_x, float(rng.uniform(1.02, 1.1)))
    height = float(rng.uniform(1.25, 1.35)) if kind < 1 / 7 else float(1.09 * np.exp(rng.normal(0, 0.03)))
    return Box(height, feet_x, 0.96 + float(rng.normal(0, 0.012)))


def _companion(people: Sequence[Person], pid: int, rng: np.random.Generator) -> Companion | None:
    """Another person at the crop's edge; None if there is only one person."""
    others = [number for number in range(1, len(people) + 1) if number != pid]
    if not others:
        return None
    nearer = bool(rng.random() < 0.4)
    across = float(rng.uniform(0.32, 0.4) if nearer else rng.uniform(0.24, 0.36))
    return Companion(
        person=people[others[int(rng.integers(len(others)))] - 1],
        yaw=float(rng.uniform(-np.pi, np.pi)),
        pose=Pose(float(rng.uniform(0, 2 * np.pi)), 0.4, 0.0, "swing"),
        across=across if rng.random() < 0.5 else -across,
        nearer=nearer,
    )


def _obstacle(rng: np.random.Generator) -> Obstacle:
    """A pole next to the middle, or a rail in front of the legs."""
    grey = float(rng.uniform(0.25, 0.75))
    colour: Colour = (grey, grey, grey * 1.03)
    if rng.random() < 0.5:
        centre = 0.5 + (1 if rng.random() < 0.5 else -1) * float(rng.uniform(0.12, 0.3))
        return Obstacle(True, centre, float(rng.uniform(0.07, 0.14)), colour)
    return Obstacle(False, float(rng.uniform(0.66, 0.85)), float(rng.uniform(0.025, 0.05)), colour)
