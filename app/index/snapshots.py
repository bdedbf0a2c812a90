"""Snapshots of an index on disk: generations of which the newest sound one counts."""

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from app.index.port import SHARED, SavedState, SnapshotError, SnapshotIndex
from app.kit.files import sync_file, sync_folder

Restore = Callable[[Path, SavedState], SnapshotIndex]

_FACTS = "snapshot.json"
_SUMS = "SHA256SUMS"
_GENERATION = re.compile(r"(\d{8})(\.damaged)?")

_DAMAGED_KEPT = 1

_log = structlog.get_logger()


class _Facts(BaseModel):
    """What lies beside an index's own files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    state: SavedState


class SnapshotStore:
    """Keeps the last snapshots of each model's index, in one folder that belongs to one process.

    A generation is a folder `00000001`, `00000002` ... It gets this name when all of it is on the disk, so that a
    crash at any moment leaves the older generations as they were. In it lie the adapter's files, `snapshot.json`, and
    `SHA256SUMS` of all but the files that are shared, as the command `sha256sum --check` reads it. A damaged one is set
    aside as `00000003.damaged`; the newest of these stays for whoever wants to know why. Methods block and may be
    called by any thread.
    """

    def __init__(self, folder: Path, restore: Restore, keep: int = 2) -> None:
        """restore: how the adapter reads what it saved; keep: generations of each model that are kept."""
        self._folder = folder
        self._draft = folder / "draft"
        self._keep = keep
        self._restore = restore
        self._alone = threading.Lock()

    def save(self, index: SnapshotIndex) -> SavedState:
        """Make a new generation and drop those that are too many. Raises OSError; the older ones stay then."""
        with self._alone:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clear_draft()
            try:
                state = self._write_draft(index)
                self._draft.rename(self._folder / f"{self._last_number() + 1:08}")
                sync_folder(self._folder)
            finally:
                self._clear_draft()
            for old in [*self._generations(index.model_id)[self._keep :], *self._set_aside()[_DAMAGED_KEPT:]]:
                self._drop(old)
            return state

    def newest(self, model_id: str) -> SnapshotIndex | None:
        """The newest sound snapshot of a model's index, or None. Damaged ones on the way to it are set aside.

        Raises OSError where a sound one cannot be restored, for want of room on the disk, say.
        """
        with self._alone:
            self._clear_draft()
            for generation in self._generations():
                try:
                    state = _state(generation)
                    if state.model_id != model_id:
                        continue
                    _check_all(generation)
                except (SnapshotError, OSError) as error:
                    _set_aside(generation, str(error))
                    continue
                try:
                    return self._restore(generation, state)
                except SnapshotError as error:
                    _set_aside(generation, str(error))
            return None

    def drop_all(self, model_id: str) -> None:
        """Delete all snapshots of a model's index. Raises OSError."""
        with self._alone:
            for generation in self._generations(model_id):
                self._drop(generation)

    def _write_draft(self, index: SnapshotIndex) -> SavedState:
        self._draft.mkdir()
        state = index.save(self._draft)
        (self._draft / _FACTS).write_bytes(_Facts(state=state).model_dump_json(indent=2).encode())
        sums = "".join(f"{_sha256(path)}  {path.name}\n" for path in _own_files(self._draft))
        (self._draft / _SUMS).write_bytes(sums.encode("ascii"))
        for path in self._draft.iterdir():
            sync_file(path)
        sync_folder(self._draft)
        return state

    def _clear_draft(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def _drop(self, generation: Path) -> None:
        generation.rename(self._draft)  # so that no half of it ever bears a generation's name
        self._clear_draft()

    def _generations(self, model_id: str | None = None) -> list[Path]:
        """Folders of generations, newest first: all, or those that say they are of one model."""
        if not self._folder.exists():
            return []
        found = (path for path in self._folder.iterdir() if _GENERATION.fullmatch(path.name) and not path.suffix)
        return [path for path in sorted(found, reverse=True) if model_id is None or _is_of(path, model_id)]

    def _set_aside(self) -> list[Path]:
        """Folders of damaged generations, of all models, newest first."""
        return sorted((path for path in self._folder.iterdir() if _is_set_aside(path)), reverse=True)

    def _last_number(self) -> int:
        """The highest number that was ever given, also to generations that are set aside."""
        names = (_GENERATION.fullmatch(path.name) for path in self._folder.iterdir())
        return max((int(name[1]) for name in names if name), default=0)


def _is_set_aside(path: Path) -> bool:
    return bool(path.suffix and _GENERATION.fullmatch(path.name))


def _state(generation: Path) -> SavedState:
    """What a generation is of. Raises SnapshotError or OSError if that is damaged; looks at nothing else."""
    _check(generation, {_FACTS: _sums(generation).get(_FACTS, "")})
    try:
        return _Facts.model_validate_json((generation / _FACTS).read_bytes()).state
    except ValidationError as error:
        raise SnapshotError(f"{generation / _FACTS} is of another version of Passerby: {error}") from error


def _is_of(generation: Path, model_id: str) -> bool:
    try:
        return _state(generation).model_id == model_id
    except (SnapshotError, OSError):
        return False


def _sums(generation: Path) -> dict[str, str]:
    """The SHA-256 that each file should have. Raises SnapshotError or OSError."""
    text = (generation / _SUMS).read_bytes().decode("ascii", errors="replace")
    *lines, rest = text.split("\n")
    if rest:
        raise SnapshotError(f"{generation / _SUMS} does not end where a line ends")
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _check(generation: Path, sums: Mapping[str, str]) -> None:
    """Raises SnapshotError or OSError unless the files are as their SHA-256 say."""
    for name, sha256 in sums.items():
        if _sha256(generation / name) != sha256:
            raise SnapshotError(f"{generation / name} does not match its SHA-256")


def _check_all(generation: Path) -> None:
    """Raises SnapshotError or OSError unless a generation is what it was when it was made."""
    sums = _sums(generation)
    if sums.keys() != {path.name for path in _own_files(generation)} - {_SUMS}:
        raise SnapshotError(f"{generation} does not hold the files that its {_SUMS} names")
    _check(generation, sums)


def _own_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != SHARED)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _set_aside(generation: Path, reason: str) -> None:
    _log.error("a snapshot of the index is damaged", snapshot=str(generation), reason=reason)
    try:
        generation.rename(generation.with_name(f"{generation.name}.damaged"))
    except OSError as error:
        _log.error("the damaged snapshot could not be set aside", snapshot=str(generation), reason=str(error))
