"""Folders with some of the shipped crops, for tests that need pictures of people."""

import csv
import shutil
from collections.abc import Container
from pathlib import Path

from model.datasets.synthetic import DRAWN_PEOPLE, MANIFEST


def copy_people(folder: Path, pids: Container[int], max_crops: int = 3) -> Path:
    """Copy the drawn crops of some persons, up to `max_crops` of each track, with their manifest."""
    with (DRAWN_PEOPLE / MANIFEST).open(encoding="utf-8", newline="") as file:
        all_rows = list(csv.DictReader(file))
    rows = [row for row in all_rows if int(row["person_id"]) in pids and _crop_of_track(row["file"]) <= max_crops]
    for row in rows:
        copy = folder / row["file"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DRAWN_PEOPLE / row["file"], copy)
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(all_rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _crop_of_track(file: str) -> int:
    return int(file.removesuffix(".jpg").rpartition("_")[2])
