"""Reads the sources of imports, folders or CSV manifests, into ordered lists of crops."""

import csv
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from app.client.errors import SourceError
from model.datasets.market1501 import market_name

MANIFEST = "manifest.csv"
"""A folder with a file of this name is read by this manifest."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

MARKET_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
"""The assumed start of Market-1501, whose names have numbers of sequence and frame, but no time."""

MARKET_FRAMES_PER_SECOND = 25
MARKET_SEQUENCE = timedelta(hours=2)  # from one sequence's start to the next; the longest has 1.8 hours

_REQUIRED_COLUMNS = ("file", "camera_id", "captured_at")
_OPTIONAL_COLUMNS = ("track_id", "person_id", "attributes")
_LAYOUTS = (
    "import takes a folder of Market-1501 names, a folder with a folder per camera, a CSV manifest, "
    "or a folder of pictures with --camera ID"
)


@dataclass(frozen=True)
class SourceItem:
    """One crop to import. `captured_at` is aware."""

    path: Path
    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Crops in the order of their import, the source's layout, and notes for the user."""

    layout: str
    items: tuple[SourceItem, ...]
    notes: tuple[str, ...]


def read_source(source: Path, camera_id: str | None = None) -> Source:
    """Read a source; `camera_id` is for a folder that holds only pictures. Raises SourceError."""
    try:
        read = _read_folder(source, camera_id) if source.is_dir() else _read_file(source, camera_id)
    except OSError as error:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error
    if not read.items:
        raise SourceError(f"{source} holds no crop to import; {'; '.join(read.notes) or _LAYOUTS}")
    return read


def _read_file(source: Path, camera_id: str | None) -> Source:
    if not source.exists():
        raise SourceError(f"there is nothing at {source}")
    if source.suffix.lower() != ".csv":
        raise SourceError(f"{source} is neither a folder nor a CSV file; {_LAYOUTS}")
    _refuse_camera(camera_id, f"{source} says the camera of each crop")
    return _read_manifest(source)


def _read_folder(folder: Path, camera_id: str | None) -> Source:
    if (folder / MANIFEST).is_file():
        return _read_file(folder / MANIFEST, camera_id)
    files, folders = _entries(folder)
    if any(market_name(path.name) for path in files):
        _refuse_camera(camera_id, f"the names of the crops in {folder} say their cameras")
        return _read_market([*files, *folders])
    if camera_id is not None:
        return _read_flat([*files, *folders], camera_id)
    pictures = [path for path in files if _is_picture(path)]
    if pictures:
        raise SourceError(
            f"{folder} holds pictures such as {pictures[0].name}, but nothing says which camera took them: "
            f"give --camera ID, put them into a folder per camera, or write a {MANIFEST}"
        )
    return _read_camera_folders(folder, folders, files)


def _refuse_camera(camera_id: str | None, why: str) -> None:
    if camera_id is not None:
        raise SourceError(f"{why}; leave out --camera")


# Market-1501


def _read_market(entries: Iterable[Path]) -> Source:
    items, junk, strays = [], 0, []
    for path in entries:
        match = market_name(path.name)
        if not match:
            strays.append(path)
        elif match["pid"] == "-1":
            junk += 1
        else:
            items.append(
                SourceItem(
                    path,
                    camera_id=f"c{match[2]}",
                    captured_at=_market_time(sequence=int(match[3]), frame=int(match[4])),
                    person_id=match[1] if int(match[1]) else None,  # 0000: distractors without an identity
                )
            )
    notes = ["the names have no time: sequence 1 is assumed to begin on 2015-01-01 UTC, each next one two hours later"]
    if junk:
        notes.append(f"left out as junk (person -1): {junk:,}")
    return Source("named as in Market-1501", tuple(items), (*notes, *_strays_note(strays)))


def _market_time(sequence: int, frame: int) -> datetime:
    elapsed = timedelta(seconds=1) * frame / MARKET_FRAMES_PER_SECOND
    return MARKET_EPOCH + (sequence - 1) * MARKET_SEQUENCE + elapsed


# Folders


def _read_flat(entries: Iterable[Path], camera_id: str) -> Source:
    pictures, strays = _partition(entries)
    clock = _CaptureTimes()
    items = [SourceItem(path, camera_id, clock.read(path)) for path in pictures]
    return Source("a folder of pictures", tuple(items), (*clock.notes(), *_strays_note(strays)))


def _read_camera_folders(root: Path, folders: Iterable[Path], loose: list[Path]) -> Source:
    clock = _CaptureTimes()
    items: list[SourceItem] = []
    strays = loose
    owners: dict[str, Path] = {}
    for folder in folders:
        pictures, others = _partition(sorted(path for path in folder.rglob("*") if path.is_file()))
        strays = strays + others
        if not pictures:
            continue
        _refuse_market(folder, pictures)
        camera_id = slug(folder.name)
        if not camera_id:
            raise SourceError(f"the name of {folder} gives no camera id; use letters a-z and digits")
        if camera_id in owners:
            raise SourceError(
                f"the folders {owners[camera_id].name!r} and {folder.name!r} in {root} give the same "
                f"camera id {camera_id!r}; rename one"
            )
        owners[camera_id] = folder
        items.extend(SourceItem(path, camera_id, clock.read(path)) for path in pictures)
    return Source("a folder per camera", tuple(items), (*clock.notes(), *_strays_note(strays)))


def _refuse_market(folder: Path, pictures: list[Path]) -> None:
    """Refuse the folders of Market-1501, such as bounding_box_test, as folders of cameras."""
    if named := next((path for path in pictures if market_name(path.name)), None):
        raise SourceError(
            f"{folder} is no camera's folder: it holds Market-1501 names such as {named.name}; "
            f"import {named.parent} itself"
        )


def slug(name: str) -> str:
    """A folder's name as a camera id: letters a-z, digits, `_` and `-`. Empty if none are left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")


class _CaptureTimes:
    """Capture times of pictures, and how many come from EXIF and from the file's modification time."""

    def __init__(self) -> None:
        self._by_exif = self._by_file = 0

    def read(self, path: Path) -> datetime:
        """EXIF DateTimeOriginal, in this computer's time zone if it has none; else the time of last modification."""
        captured_at = _exif_time(path)
        if captured_at is not None:
            self._by_exif += 1
            return captured_at
        self._by_file += 1
        return datetime.fromtimestamp(path.stat().st_mtime).astimezone()

    def notes(self) -> Iterator[str]:
        if self._by_exif:
            yield f"captured_at from EXIF DateTimeOriginal: {self._by_exif:,}"
        if self._by_file:
            yield f"captured_at from the last modification, without EXIF DateTimeOriginal: {self._by_file:,}"


def _exif_time(path: Path) -> datetime | None:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        original = str(exif[ExifTags.Base.DateTimeOriginal]).strip("\0 ")
        offset = str(exif.get(ExifTags.Base.OffsetTimeOriginal, "")).strip("\0 ")
        if offset:
            return datetime.strptime(f"{original} {offset}", "%Y:%m:%d %H:%M:%S %z")
        return datetime.strptime(original, "%Y:%m:%d %H:%M:%S").astimezone()
    except Exception:  # Pillow raises many kinds of errors; the service refuses files that are no pictures
        return None


# CSV manifest


def _read_manifest(path: Path) -> Source:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            missing = [column for column in _REQUIRED_COLUMNS if column not in columns]
            if missing:
                raise SourceError(
                    f"{path}, line 1: no column {', '.join(missing)} in {', '.join(columns)!r}; there must be "
                    f"{', '.join(_REQUIRED_COLUMNS)}, and there may be {', '.join(_OPTIONAL_COLUMNS)}"
                )
            items = tuple(_ManifestRow(path, reader.line_num, row).item() for row in reader)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not encoded in UTF-8: {error}") from error
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.reader.line_num}: {error}") from error
    unknown = [column for column in columns if column not in (*_REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)]
    notes = (f"unknown columns ignored: {', '.join(unknown)}",) if unknown else ()
    return Source("listed in a CSV manifest", items, notes)


@dataclass(frozen=True)
class _ManifestRow:
    manifest: Path
    line: int
    values: Mapping[str | None, Any]  # values beyond the last column are under None

    def item(self) -> SourceItem:
        if None in self.values:
            raise SourceError(f"{self.manifest}, line {self.line}: more values than there are columns")
        return SourceItem(
            path=self._file(),
            camera_id=self._required("camera_id"),
            captured_at=self._captured_at(),
            track_id=self._text("track_id"),
            person_id=self._text("person_id"),
            attributes=self._attributes(),
        )

    def _file(self) -> Path:
        name = self._required("file")
        path = self.manifest.parent / name
        if not path.is_file():
            raise self._error("file", f"there is no file {path}")
        return path

    def _captured_at(self) -> datetime:
        text = self._required("captured_at")
        try:
            captured_at = datetime.fromisoformat(text)
        except ValueError as error:
            raise self._error("captured_at", f"{text!r} is no ISO 8601 time") from error
        if captured_at.tzinfo is None:
            raise self._error("captured_at", f"{text!r} has no zone; end it with Z or with +02:00, say")
        return captured_at

    def _attributes(self) -> Mapping[str, Any]:
        text = self._text("attributes")
        if text is None:
            return {}
        try:
            attributes = json.loads(text)
        except ValueError as error:
            raise self._error("attributes", f"{text!r} is no JSON: {error}") from error
        if not isinstance(attributes, dict):
            raise self._error("attributes", f"{text!r} is no JSON object")
        return attributes

    def _required(self, column: str) -> str:
        text = self._text(column)
        if text is None:
            raise self._error(column, "is empty")
        return text

    def _text(self, column: str) -> str | None:
        return (self.values.get(column) or "").strip() or None

    def _error(self, column: str, problem: str) -> SourceError:
        return SourceError(f"{self.manifest}, line {self.line}, column {column}: {problem}")


# Files


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder, each sorted by name, without hidden folders."""
    entries = sorted(folder.iterdir())
    folders = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
    return [path for path in entries if path.is_file()], folders


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _partition(entries: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    pictures: list[Path] = []
    others: list[Path] = []
    for path in entries:
        (pictures if _is_picture(path) else others).append(path)
    return pictures, others


def _strays_note(strays: list[Path]) -> Iterator[str]:
    if strays:
        kinds = Counter(path.suffix.lower() or path.name for path in strays)
        yield f"ignored files: {len(strays):,} ({', '.join(kind for kind, _ in kinds.most_common(5))})"
