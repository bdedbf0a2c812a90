"""A user's crops, listed in a CSV file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.datasets.base import NO_CAMERA, EvaluationSplit, PartSize, Sample
from model.datasets.reading import YOUR_OWN_TERMS, number_names, persons_only, without_junk
from model.errors import DataError

_PARTS = ("train", "query", "gallery")
_LAYOUT = "a manifest is a CSV file with the columns file and pid, and, where you know them, camera and split"
_ALIASES = {"pid": "person_id", "camera": "camera_id"}


class Manifest:
    """Rows of `file` (relative to the manifest), `pid`, and optionally `camera` and `split`.

    Integers are used as they are (pid -1 is junk, 0 a distractor); other names are numbered in sorted order. If no row
    has a camera, cameras are unknown. split is train (the default), query or gallery. A manifest for `passerby import`
    with `person_id` works too. The data set is called like the file, or like the folder of a file manifest.csv.
    """

    official: Mapping[str, PartSize] = {}
    terms = YOUR_OWN_TERMS

    def __init__(self, path: Path) -> None:
        """Raises DataError."""
        self._path = path
        self.name = path.stem if path.stem != "manifest" else path.resolve().parent.name
        rows = _read_rows(path)
        pids = _numbers([row["pid"] for row in rows])
        cameras = [row["camera"] for row in rows]
        if any(cameras) and not all(cameras):
            raise DataError(
                f"line {cameras.index('') + 2} of {path} has no camera, but others have: give it for all or none"
            )
        camera_numbers = _numbers(cameras) if any(cameras) else [NO_CAMERA] * len(rows)
        self._samples: dict[str, list[Sample]] = {part: [] for part in _PARTS}
        for row, pid, camera in zip(rows, pids, camera_numbers, strict=True):
            self._samples[row["split"]].append(Sample(path.parent / row["file"], pid, camera))

    def train(self) -> tuple[Sample, ...]:
        samples = persons_only(tuple(self._samples["train"]))
        if not samples:
            raise DataError(f"{self._path} has no training row with a person")
        return samples

    def has_test(self) -> bool:
        return bool(self._samples["query"] and self._samples["gallery"])

    def test(self) -> EvaluationSplit:
        if not self.has_test():
            raise DataError(f"{self._path} has no rows with split query and gallery: hold identities out instead")
        query, gallery = (without_junk(tuple(self._samples[part])) for part in ("query", "gallery"))
        return EvaluationSplit(query, gallery)


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            raw = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the manifest {path} ({error}): {_LAYOUT}") from error
    for column in ("file", "pid"):
        if column not in columns and _ALIASES.get(column) not in columns:
            raise DataError(f"{path} has no column {column!r}: {_LAYOUT}")
    rows = [
        {
            "file": row.get("file") or "",
            "pid": row.get("pid") or row.get("person_id") or "",
            "camera": row.get("camera") or row.get("camera_id") or "",
            "split": row.get("split") or "train",
        }
        for row in raw
    ]
    for number, row in enumerate(rows, start=2):
        if not row["file"] or not row["pid"]:
            raise DataError(f"line {number} of {path} has no {'file' if not row['file'] else 'pid'}")
        if row["split"] not in _PARTS:
            raise DataError(
                f"line {number} of {path} has split {row['split']!r}; it must be one of {', '.join(_PARTS)}"
            )
    if not rows:
        raise DataError(f"{path} has no rows: {_LAYOUT}")
    return rows


def _numbers(names: Sequence[str]) -> list[int]:
    """The names as integers, or numbered if one is not an integer."""
    try:
        return [int(name) for name in names]
    except ValueError:
        return number_names(names)
