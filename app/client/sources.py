"""Reads the sources of imports, folders or CSV manifests, into ordered lists of crops."""

import hashlib
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from app.client.errors import SourceError
from model.csv_table import CsvRow, listed_file, read_csv
from model.datasets.market1501 import market_name
from model.errors import DataError, counted, shortened
from model.files import printable
from model.folders import LeftOut, Walk
from passerby import NewCrop

MANIFEST = "manifest.csv"
"""A folder with a file of this name is read by this manifest."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

MARKET_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
"""The assumed start of Market-1501, whose names have numbers of sequence and frame, but no time."""

MARKET_FRAMES_PER_SECOND = 25
MARKET_SEQUENCE = timedelta(hours=2)  # from one sequence's start to the next; the longest has 1.8 hours

_CAMERA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_ID_LENGTH = 64
_DIGEST_LENGTH = 6
_REQUIRED_COLUMNS = ("file", "camera_id", "captured_at")
_OPTIONAL_COLUMNS = ("track_id", "person_id", "attributes")
_LAYOUTS = (
    "import takes a folder of Market-1501 names, a folder with a folder per camera, a CSV manifest, "
    "or a folder of pictures with --camera ID"
)


@dataclass(frozen=True)
class SourceItem:
    """One crop to import. `captured_at` is aware; `time_guessed`: it is the time of the file."""

    path: Path
    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    time_guessed: bool = False

    def crop(self) -> NewCrop:
        """The crop to store."""
        return NewCrop(
            self.path,
            self.camera_id,
            self.captured_at,
            self.track_id,
            self.person_id,
            self.attributes,
            self.time_guessed,
        )


@dataclass(frozen=True)
class Source:
    """Crops in the order of their import, the source's layout, and notes for the user.

    camera_names: of the cameras whose id is not their name as written.
    """

    layout: str
    items: tuple[SourceItem, ...]
    notes: tuple[str, ...]
    camera_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def guessed_times(self) -> int:
        """How many crops have the time of their file."""
        return sum(item.time_guessed for item in self.items)


def read_source(source: Path, camera_id: str | None = None) -> Source:
    """Read a source; `camera_id` is for a folder that holds only pictures. Raises SourceError."""
    try:
        read = _read_folder(source, camera_id) if source.is_dir() else _read_file(source, camera_id)
    except OSError as error:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error
    except DataError as error:
        raise SourceError(str(error)) from error
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
    walk = Walk(folder, PICTURE_SUFFIXES)
    pictures, folders, left_out = walk.entries(folder)
    if any(market_name(path.name) for path in pictures):
        _refuse_camera(camera_id, f"the names of the crops in {folder} say their cameras")
        return _read_market(pictures, (*left_out.notes(), *_folders_note(folders)))
    if camera_id is not None:
        return _read_flat(pictures, camera_id, (*left_out.notes(), *_folders_note(folders)))
    if pictures:
        raise SourceError(
            f"{folder} holds pictures such as {pictures[0].name}, but nothing says which camera took them: "
            f"give --camera ID, put them into a folder per camera, or write a {MANIFEST}"
        )
    return _read_camera_folders(walk, folders, left_out)


def _refuse_camera(camera_id: str | None, why: str) -> None:
    if camera_id is not None:
        raise SourceError(f"{why}; leave out --camera")


def _folders_note(folders: Sequence[Path]) -> Iterator[str]:
    if folders:
        yield f"left out: {counted(len(folders), 'folder')} ({shortened([path.name for path in folders])})"


# Cameras


def _with_ids(source: Source, rule: Callable[[str], str]) -> Source:
    """The source with ids in place of its cameras' names. Raises SourceError where two names give one id."""
    ids = {name: rule(name) for name in sorted({item.camera_id for item in source.items})}
    names: dict[str, str] = {}
    for name, camera_id in ids.items():
        other = names.setdefault(camera_id, name)
        if other != name:
            raise SourceError(
                f"the cameras {printable(other)!r} and {printable(name)!r} give the same camera id {camera_id!r}; "
                "rename one"
            )
    renamed = {camera_id: printable(name) for camera_id, name in names.items() if camera_id != name}
    notes = tuple(f"camera {camera_id} is {name!r}" for camera_id, name in renamed.items())
    items = tuple(replace(item, camera_id=ids[item.camera_id]) for item in source.items)
    return Source(source.layout, items, (*source.notes, *notes), renamed)


def camera_id_of(name: str) -> str:
    """The id of a camera with this name.

    It is the name in lower case and without accents; `-` stands for everything but letters a-z, digits and `_`. Where
    this loses letters or digits, digits of the name's SHA-256 follow, so that different names have different ids.
    Raises SourceError for a name without letters and digits.
    """
    plain = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    short = re.sub(r"[^a-z0-9_]+", "-", letters).strip("-_")
    is_whole = all(character.isascii() for character in letters if character.isalnum() or _is_undecodable(character))
    if is_whole and short and len(short) <= _MAX_ID_LENGTH:
        return short
    if is_whole and not short:
        raise SourceError(f"the camera {name!r} has no letters or digits that can be its id; rename it")
    digest = hashlib.sha256(os.fsencode(unicodedata.normalize("NFC", name))).hexdigest()[:_DIGEST_LENGTH]
    return "-".join(filter(None, (short[: _MAX_ID_LENGTH - _DIGEST_LENGTH - 1].strip("-_"), digest)))


def _id_as_given(name: str) -> str:
    return name if _CAMERA_ID.fullmatch(name) else camera_id_of(name)


def _is_undecodable(character: str) -> bool:
    """Whether this stands for a byte that is not UTF-8 in a file name."""
    return "\udc80" <= character <= "\udcff"


# Market-1501


def _read_market(pictures: Sequence[Path], notes: Sequence[str]) -> Source:
    items: list[SourceItem] = []
    junk: list[Path] = []
    others: list[Path] = []
    distractors = 0
    for path in pictures:
        match = market_name(path.name)
        if not match:
            others.append(path)
        elif match["pid"] == "-1":
            junk.append(path)
        else:
            is_person = int(match["pid"]) != 0
            distractors += not is_person
            items.append(
                SourceItem(
                    path,
                    camera_id=f"c{match['camera']}",
                    captured_at=_market_time(sequence=int(match["sequence"]), frame=int(match["frame"])),
                    person_id=match["pid"] if is_person else None,
                )
            )
    own = ["the names have no time: sequence 1 is assumed to begin on 2015-01-01 UTC, each next one two hours later"]
    if junk:
        own.append(f"left out: {counted(len(junk), 'crop')} of junk (person -1)")
    if distractors:
        own.append(f"without a person: {counted(distractors, 'crop')} of distractors (person 0000)")
    if others:
        named = shortened([path.name for path in others])
        own.append(f"left out: {counted(len(others), 'picture')} not named as in Market-1501 ({named})")
    return Source("named as in Market-1501", tuple(items), (*own, *notes))


def _market_time(sequence: int, frame: int) -> datetime:
    elapsed = timedelta(seconds=1) * frame / MARKET_FRAMES_PER_SECOND
    return MARKET_EPOCH + (sequence - 1) * MARKET_SEQUENCE + elapsed


# Folders


def _read_flat(pictures: Sequence[Path], camera_id: str, notes: Sequence[str]) -> Source:
    clock = _CaptureTimes()
    items = [clock.item(path, camera_id) for path in pictures]
    source = Source("a folder of pictures", tuple(items), (*clock.notes(), *notes))
    return _with_ids(source, _id_as_given)


def _read_camera_folders(walk: Walk, folders: Sequence[Path], left_out: LeftOut) -> Source:
    clock = _CaptureTimes()
    items: list[SourceItem] = []
    for folder in folders:
        pictures = walk.pictures(folder)
        left_out += pictures.left_out
        _refuse_market(folder, pictures.paths)
        items.extend(clock.item(path, unicodedata.normalize("NFC", folder.name)) for path in pictures.paths)
    source = Source("a folder per camera", tuple(items), (*clock.notes(), *left_out.notes()))
    return _with_ids(source, camera_id_of)


def _refuse_market(folder: Path, pictures: Sequence[Path]) -> None:
    """Refuse the folders of Market-1501, such as bounding_box_test, as folders of cameras."""
    if named := next((path for path in pictures if market_name(path.name)), None):
        raise SourceError(
            f"{folder} is no camera's folder: it holds Market-1501 names such as {named.name}; "
            f"import {named.parent} itself"
        )


class _CaptureTimes:
    """Capture times of pictures, and how many come from EXIF and from the file's modification time."""

    def __init__(self) -> None:
        self._by_exif = self._without_zone = self._by_file = 0

    def item(self, path: Path, camera_id: str) -> SourceItem:
        """The crop of a picture.

        Its time is EXIF's DateTimeOriginal, in this computer's time zone if it has none; else the time of the file's
        last modification, as a guess.
        """
        captured_at = _exif_time(path)
        if captured_at is None:
            self._by_file += 1
            modified_at = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            return SourceItem(path, camera_id, modified_at, time_guessed=True)
        self._by_exif += 1
        if captured_at.tzinfo is None:
            self._without_zone += 1
        return SourceItem(path, camera_id, captured_at if captured_at.tzinfo else captured_at.astimezone())

    def notes(self) -> Iterator[str]:
        if self._by_exif:
            yield f"captured_at from EXIF DateTimeOriginal: {self._by_exif:,}"
        if self._without_zone:
            yield f"of these without a time zone, taken as this computer's: {self._without_zone:,}"


def _exif_time(path: Path) -> datetime | None:
    """DateTimeOriginal with its fraction of a second, naive where its offset is missing or unreadable."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        taken = datetime.strptime(_exif_text(exif, ExifTags.Base.DateTimeOriginal), "%Y:%m:%d %H:%M:%S")
    except Exception:  # Pillow raises many kinds of errors; the service refuses files that are no pictures
        return None
    fraction = re.match(r"\d*", _exif_text(exif, ExifTags.Base.SubsecTimeOriginal))
    taken = taken.replace(microsecond=int(f"{fraction[0] if fraction else ''}000000"[:6]))
    try:
        zone = datetime.strptime(_exif_text(exif, ExifTags.Base.OffsetTimeOriginal), "%z").tzinfo
    except ValueError:  # cameras write blanks where they do not know it
        return taken
    return taken.replace(tzinfo=zone)


def _exif_text(exif: Mapping[int, Any], tag: int) -> str:
    return str(exif.get(tag, "")).strip("\0 ")


# CSV manifest


def _read_manifest(path: Path) -> Source:
    table = read_csv(path)
    missing = [column for column in _REQUIRED_COLUMNS if column not in table.columns]
    if missing:
        raise SourceError(
            f"{path}, line 1: no column {', '.join(missing)} in {', '.join(table.columns)!r}; there must be "
            f"{', '.join(_REQUIRED_COLUMNS)}, and there may be {', '.join(_OPTIONAL_COLUMNS)}"
        )
    items = tuple(_ManifestRow(path, row).item() for row in table.rows)
    unknown = [column for column in table.columns if column not in (*_REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)]
    notes = (f"unknown columns ignored: {', '.join(unknown)}",) if unknown else ()
    return _with_ids(Source("listed in a CSV manifest", items, notes), _id_as_given)


@dataclass(frozen=True)
class _ManifestRow:
    manifest: Path
    row: CsvRow

    def item(self) -> SourceItem:
        return SourceItem(
            path=self._file(),
            camera_id=self._required("camera_id"),
            captured_at=self._captured_at(),
            track_id=self._text("track_id"),
            person_id=self._text("person_id"),
            attributes=self._attributes(),
        )

    def _file(self) -> Path:
        path = listed_file(self.manifest.parent, self._required("file"))
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
        return self.row.values.get(column) or None

    def _error(self, column: str, problem: str) -> SourceError:
        return SourceError(f"{self.manifest}, line {self.row.line}, column {column}: {problem}")
