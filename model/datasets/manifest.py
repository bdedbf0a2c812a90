"""A user's crops listed in a CSV file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.csv_table import CsvRow, listed_file, read_csv
from model.datasets.base import JUNK, NO_CAMERA, EvaluationSplit, PartName, PartSize, Sample
from model.datasets.reading import YOUR_OWN_TERMS, numbers_of
from model.errors import DataError, counted
from model.files import printable

_PARTS = ("train", "query", "gallery")
_LAYOUT = "a manifest is a CSV file with the columns file and pid, and, where you know them, camera and split"
_JUNK = str(JUNK)
_NO_CAMERA = str(NO_CAMERA)


class Manifest:
    """Rows of `file` (relative to the manifest), `pid`, and optionally `camera` and `split`.

    Names of persons and cameras are taken as written, numbers too; person -1 is junk and left out, camera -1 unknown.
    If no row has a camera, cameras are unknown. split is train (the default), query or gallery. A manifest for
    `passerby import` with `person_id` works too. The data set is called like the file, or like the folder of a file
    manifest.csv.
    """

    official: Mapping[str, PartSize] = {}
    terms = YOUR_OWN_TERMS

    def __init__(self, path: Path) -> None:
        """Raises DataError."""
        self._path = path
        self.name = printable(path.stem if path.stem != "manifest" else path.resolve().parent.name)
        rows = _read_rows(path)
        self._kept = [row for row in rows if row.pid != _JUNK]
        self._junk = Counter(row.split for row in rows if row.pid == _JUNK)
        pids = numbers_of([row.pid for row in self._kept])
        self._samples: dict[str, list[Sample]] = {part: [] for part in _PARTS}
        for row, pid, camera in zip(self._kept, pids, _cameras(path, self._kept), strict=True):
            self._samples[row.split].append(Sample(listed_file(path.parent, row.file), pid, camera))

    def train(self) -> tuple[Sample, ...]:
        samples = tuple(self._samples["train"])
        if not samples:
            raise DataError(f"{self._path} has no training row with a person")
        return samples

    def has_test(self) -> bool:
        return bool(self._samples["query"] and self._samples["gallery"])

    def test(self) -> EvaluationSplit:
        if not self.has_test():
            raise DataError(f"{self._path} has no rows with split query and gallery: hold identities out instead")
        return EvaluationSplit(tuple(self._samples["query"]), tuple(self._samples["gallery"]))

    def notes(self, part: PartName) -> tuple[str, ...]:
        splits = ("train",) if part == "train" else ("query", "gallery")
        notes = []
        if junk := sum(self._junk[split] for split in splits):
            notes.append(f"left out: {counted(junk, 'row')} of junk (pid -1)")
        if zeros := sum(row.split in splits and row.pid.strip("0") == "" for row in self._kept):
            notes.append(f"pid 0 is a person like any other: {counted(zeros, 'row')}; leave rows of distractors out")
        if not any(row.camera for row in self._kept):
            notes.append("cameras unknown: there is no column camera, or it is empty")
        for what, names in (("persons", {r.pid for r in self._kept}), ("cameras", {r.camera for r in self._kept})):
            if similar := _similar(names):
                notes.append(f"{what} are taken as written: {' and '.join(similar)} are different")
        return tuple(notes)


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    pid: str
    camera: str
    split: str


def _read_rows(path: Path) -> list[_Row]:
    table = read_csv(path)
    for column, other in (("file", "file"), ("pid", "person_id")):
        if column not in table.columns and other not in table.columns:
            raise DataError(f"{path} has no column {column!r} in {', '.join(table.columns)!r}: {_LAYOUT}")
    rows = [_row(path, row) for row in table.rows]
    if not rows:
        raise DataError(f"{path} has no rows: {_LAYOUT}")
    return rows


def _row(path: Path, row: CsvRow) -> _Row:
    def value(*columns: str) -> str:
        return next((row.values[column] for column in columns if row.values.get(column)), "")

    read = _Row(
        row.line, value("file"), value("pid", "person_id"), value("camera", "camera_id"), value("split") or "train"
    )
    if not read.file or not read.pid:
        raise DataError(f"line {row.line} of {path} has no {'file' if not read.file else 'pid'}")
    if read.split not in _PARTS:
        raise DataError(f"line {row.line} of {path} has split {read.split!r}; it must be one of {', '.join(_PARTS)}")
    return read


def _cameras(path: Path, rows: Sequence[_Row]) -> list[int]:
    if not any(row.camera for row in rows):
        return [NO_CAMERA] * len(rows)
    for row in rows:
        if not row.camera:
            raise DataError(f"line {row.line} of {path} has no camera, but others have: give it for all or none")
    known = [row.camera for row in rows if row.camera != _NO_CAMERA]
    numbers = dict(zip(known, numbers_of(known), strict=True)) | {_NO_CAMERA: NO_CAMERA}
    return [numbers[row.camera] for row in rows]


def _similar(names: set[str]) -> list[str]:
    """Two numbers that are the same but for leading zeros, if there are any."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        if name.isascii() and name.isdecimal() and seen.setdefault(name.lstrip("0"), name) != name:
            return [seen[name.lstrip("0")], name]
    return []
