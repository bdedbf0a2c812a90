"""A user's crops in a folder for each person."""

import re
from collections.abc import Mapping
from pathlib import Path

from model.datasets.base import NO_CAMERA, EvaluationSplit, PartSize, Sample
from model.datasets.reading import PICTURE_SUFFIXES, YOUR_OWN_TERMS, number_names
from model.errors import DataError

_CAMERA = re.compile(r"(?:^|[_-])c(?:am)?(\d+)", re.IGNORECASE)
_LAYOUT = "it holds a folder for each person with that person's crops in it"


class Folders:
    """A folder for each person, named after the person; pids follow the order of the names.

    The camera is the number after `_c` or `cam` in a crop's name, or a subfolder of the person's folder, or unknown.
    Folders `train`, `query` and `gallery`, each with folders of persons, give an official test part.
    """

    official: Mapping[str, PartSize] = {}
    terms = YOUR_OWN_TERMS

    def __init__(self, root: Path) -> None:
        """Raises DataError."""
        if not root.is_dir():
            raise DataError(f"{root} is missing: {_LAYOUT}")
        self._root = root
        self.name = root.resolve().name
        inner = {part: root / part for part in ("train", "query", "gallery")}
        self._parts = inner if all(folder.is_dir() for folder in inner.values()) else {"train": root}
        self._persons = sorted(
            {folder.name for part in self._parts.values() for folder in part.iterdir() if _is_person(folder)}
        )

    def train(self) -> tuple[Sample, ...]:
        return self._read("train")

    def has_test(self) -> bool:
        return "query" in self._parts

    def test(self) -> EvaluationSplit:
        if not self.has_test():
            raise DataError(f"{self._root} has no folders query and gallery: hold identities out instead")
        return EvaluationSplit(self._read("query"), self._read("gallery"))

    def _read(self, part: str) -> tuple[Sample, ...]:
        folder = self._parts[part]
        crops = [
            (path, pid)
            for pid, person in enumerate(self._persons, start=1)
            for path in sorted((folder / person).rglob("*"))
            if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
        ]
        if not crops:
            raise DataError(f"{folder} holds no crops: {_LAYOUT}")
        return tuple(Sample(path, pid, camera) for (path, pid), camera in zip(crops, self._cameras(crops), strict=True))

    def _cameras(self, crops: list[tuple[Path, int]]) -> list[int]:
        """Cameras by file name, by subfolder, or unknown; the same way for all crops."""
        matches = [_CAMERA.search(path.stem) for path, _ in crops]
        if all(matches):
            return [int(match[1]) for match in matches if match]
        if any(matches):
            without = next(path for (path, _), match in zip(crops, matches, strict=True) if not match)
            raise DataError(
                f"some file names have a camera (..._c3...), but {without} has none: give it in all names or in none"
            )
        folders = [path.parent.name for path, _ in crops]
        if any(folder == self._persons[pid - 1] for folder, (_, pid) in zip(folders, crops, strict=True)):
            return [NO_CAMERA] * len(crops)
        return number_names(folders)


def _is_person(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")
