"""Snapshots of an index on disk: numbered generations, of which the newest undamaged one is used."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from app.index.port import SavedState, SnapshotError, SnapshotIndex
from model.files import file_sha256, sync_file, sync_folder

Restore = Callable[[Path, SavedState], SnapshotIndex]

_MANIFEST = "snapshot.json"
_CHECKSUMS = "SHA256SUMS"
_GENERATION = re.compile(r"(\d{8})(\.damaged)?")

_FORMAT: Literal[3] = 3
_EARLIER_FORMATS = (1, 2)

_DAMAGED_KEPT = 1

_log = structlog.get_logger()


class _Manifest(BaseModel):
    """The content of `snapshot.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[3] = _FORMAT
    state: SavedState


class SnapshotStore:
    """Keeps the last snapshots of each model's index, in one folder that belongs to one process.

    A generation is a folder `00000001`, `00000002` ... It is written as a draft and renamed when all of it is on the
    disk, so a crash never damages older generations. It holds the adapter's files, `snapshot.json`, and `SHA256SUMS`,
    which lists all files in the format of `sha256sum --check`. A damaged generation is renamed to `00000003.damaged`;
    the newest of these is kept for inspection, until a crop is deleted. Generations of earlier versions are deleted or
    written again, and those that hold a deleted crop are deleted when the next one is written. Methods block and are
    thread-safe.
    """

    def __init__(self, folder: Path, restore: Restore, keep: int = 2) -> None:
        """restore: reads an adapter's files; keep: number of generations of each model to keep."""
        self._folder = folder
        self._draft = folder / "draft"
        self._keep = keep
        self._restore = restore
        self._lock = threading.Lock()

    def save(self, index: SnapshotIndex) -> SavedState:
        """Write a new generation and delete the oldest ones, and those of any model that may hold a deleted crop.

        Raises OSError, which leaves older generations intact.
        """
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            state, written = self._write(index)
            damaged = self._damaged_generations()[0 if state.last_removal else _DAMAGED_KEPT :]
            for old in {*self._generations(index.model_id)[self._keep :], *self._outdated(written, state), *damaged}:
                self._drop(old)
            return state

    def newest(self, model_id: str) -> SnapshotIndex | None:
        """Restore the newest undamaged snapshot of a model's index, or return None. Sets newer damaged ones aside.

        Raises OSError if an undamaged one cannot be restored, for example because the disk is full.
        """
        with self._lock:
            self._clear_draft()
            self._drop_earlier_formats()
            for generation in self._generations():
                try:
                    state = _state(generation)
                    if state.model_id != model_id:
                        continue
                    _verify_all(generation)
                except (SnapshotError, OSError) as error:
                    _mark_damaged(generation, str(error))
                    continue
                try:
                    index = self._restore(generation, state)
                except SnapshotError as error:
                    _mark_damaged(generation, str(error))
                    continue
                if state.last_removal is None:
                    self._replace_all(index)
                for old in self._outdated(generation, state):
                    self._drop(old)
                return index
            return None

    def _replace_all(self, index: SnapshotIndex) -> None:
        """Write a snapshot of an earlier version again, which may hold texts of deleted crops; delete all others."""
        _log.info("a snapshot of an earlier version is written again", model_id=index.model_id)
        _, written = self._write(index)
        for old in [*self._generations(), *self._damaged_generations()]:
            if old != written:
                self._drop(old)

    def _outdated(self, generation: Path, state: SavedState) -> list[Path]:
        """The generations of all models that may hold a crop that was deleted before one was written."""
        if not state.last_removal:
            return []
        return [
            path for path in self._generations() if path != generation and not _ends_after(path, state.last_removal)
        ]

    def drop_all(self, model_id: str | None = None) -> None:
        """Delete all snapshots, or those of one model's index. Raises OSError."""
        with self._lock:
            for generation in self._generations(model_id):
                self._drop(generation)

    def _drop_earlier_formats(self) -> None:
        for generation in self._generations():
            if _is_earlier_format(generation):
                _log.info("a snapshot of an earlier version is deleted", snapshot=str(generation))
                self._drop(generation)

    def _write(self, index: SnapshotIndex) -> tuple[SavedState, Path]:
        """Write a new generation; its state and folder."""
        self._clear_draft()
        try:
            state = self._write_draft(index)
            generation = self._draft.rename(self._folder / f"{self._last_number() + 1:08}")
            sync_folder(self._folder)
        finally:
            self._clear_draft()
        return state, generation

    def _write_draft(self, index: SnapshotIndex) -> SavedState:
        self._draft.mkdir()
        state = index.save(self._draft)
        (self._draft / _MANIFEST).write_bytes(_Manifest(state=state).model_dump_json(indent=2).encode())
        checksums = "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted(self._draft.iterdir()))
        (self._draft / _CHECKSUMS).write_bytes(checksums.encode("ascii"))
        for path in self._draft.iterdir():
            sync_file(path)
        sync_folder(self._draft)
        return state

    def _clear_draft(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def _drop(self, generation: Path) -> None:
        generation.rename(self._draft)  # atomic: a generation is never half deleted
        self._clear_draft()

    def _generations(self, model_id: str | None = None) -> list[Path]:
        """Folders of generations, newest first: all, or those of one model."""
        if not self._folder.exists():
            return []
        found = (path for path in self._folder.iterdir() if _GENERATION.fullmatch(path.name) and not path.suffix)
        return [path for path in sorted(found, reverse=True) if model_id is None or _is_of(path, model_id)]

    def _damaged_generations(self) -> list[Path]:
        """Folders of damaged generations, of all models, newest first."""
        return sorted((path for path in self._folder.iterdir() if _is_damaged(path)), reverse=True)

    def _last_number(self) -> int:
        """The highest number in use, including damaged generations."""
        names = (_GENERATION.fullmatch(path.name) for path in self._folder.iterdir())
        return max((int(name[1]) for name in names if name), default=0)


def _is_damaged(path: Path) -> bool:
    return bool(path.suffix and _GENERATION.fullmatch(path.name))


def _state(generation: Path) -> SavedState:
    """The state of a generation. Verifies the manifest only; raises SnapshotError or OSError if it is damaged."""
    _verify(generation, {_MANIFEST: _checksums(generation).get(_MANIFEST, "")})
    try:
        return _Manifest.model_validate_json((generation / _MANIFEST).read_bytes()).state
    except ValidationError as error:
        raise SnapshotError(f"{generation / _MANIFEST} is of another version of Passerby: {error}") from error


def _is_earlier_format(generation: Path) -> bool:
    try:
        manifest = json.loads((generation / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False  # damaged
    return isinstance(manifest, dict) and manifest.get("format") in _EARLIER_FORMATS


def _is_of(generation: Path, model_id: str) -> bool:
    try:
        return _state(generation).model_id == model_id
    except (SnapshotError, OSError):
        return False


def _ends_after(generation: Path, sequence: int) -> bool:
    """Whether a generation holds all changes up to a number; False for a damaged one."""
    try:
        return _state(generation).last_sequence >= sequence
    except (SnapshotError, OSError):
        return False


def _checksums(generation: Path) -> dict[str, str]:
    """The expected SHA-256 of each file. Raises SnapshotError or OSError."""
    text = (generation / _CHECKSUMS).read_bytes().decode("ascii", errors="replace")
    *lines, rest = text.split("\n")
    if rest:
        raise SnapshotError(f"{generation / _CHECKSUMS} does not end with a newline")
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _verify(generation: Path, checksums: Mapping[str, str]) -> None:
    """Raises SnapshotError or OSError unless each file has its SHA-256."""
    for name, sha256 in checksums.items():
        if file_sha256(generation / name) != sha256:
            raise SnapshotError(f"{generation / name} does not match its SHA-256")


def _verify_all(generation: Path) -> None:
    """Raises SnapshotError or OSError unless a generation has exactly the files that were written."""
    checksums = _checksums(generation)
    if checksums.keys() != {path.name for path in generation.iterdir()} - {_CHECKSUMS}:
        raise SnapshotError(f"{generation} does not hold the files that its {_CHECKSUMS} lists")
    _verify(generation, checksums)


def _mark_damaged(generation: Path, reason: str) -> None:
    _log.error("a snapshot of the index is damaged", snapshot=str(generation), reason=reason)
    try:
        generation.rename(generation.with_name(f"{generation.name}.damaged"))
    except OSError as error:
        _log.error("the damaged snapshot could not be set aside", snapshot=str(generation), reason=str(error))
