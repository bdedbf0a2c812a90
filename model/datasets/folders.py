"""A user's crops in a folder for each person."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.datasets.base import NO_CAMERA, EvaluationSplit, PartName, PartSize, Sample
from model.datasets.reading import PICTURE_SUFFIXES, YOUR_OWN_TERMS, Read, number_names
from model.errors import DataError, counted
from model.files import printable
from model.folders import Walk

_CAMERA = re.compile(
    r"_c([0-9]{1,9})(?:s[0-9]+)?(?=_|$)|^c([0-9]{1,9})(?:s[0-9]+)?_|(?:^|[_-])cam(?:era)?([0-9]{1,9})(?![a-z0-9])",
    re.IGNORECASE,
)
_LAYOUT = "it holds a folder for each person with that person's crops in it"


class Folders:
    """A folder for each person, named after the person; pids follow the order of the names.

    The camera is in a crop's name as `_c3`, `_c3s1`, `cam3` or `camera3` between `_`, or a subfolder of the person's
    folder, or unknown. Folders `train`, `query` and `gallery`, each with folders of persons, give an official test
    part.
    """

    official: Mapping[str, PartSize] = {}
    terms = YOUR_OWN_TERMS

    def __init__(self, root: Path) -> None:
        """Raises DataError."""
        if not root.is_dir():
            raise DataError(f"{root} is missing: {_LAYOUT}")
        self._root = root
        self.name = printable(root.resolve().name)
        inner = {part: root / part for part in ("train", "query", "gallery")}
        self._parts = inner if all(folder.is_dir() for folder in inner.values()) else {"train": root}
        persons = (Walk(part, PICTURE_SUFFIXES).entries(part)[1] for part in self._parts.values())
        self._persons = sorted({folder.name for folders in persons for folder in folders})

    def train(self) -> tuple[Sample, ...]:
        return self._read("train").samples

    def has_test(self) -> bool:
        return "query" in self._parts

    def test(self) -> EvaluationSplit:
        if not self.has_test():
            raise DataError(f"{self._root} has no folders query and gallery: hold identities out instead")
        return EvaluationSplit(self._read("query").samples, self._read("gallery").samples)

    def notes(self, part: PartName) -> tuple[str, ...]:
        reads = [self._read(name) for name in (("train",) if part == "train" else ("query", "gallery"))]
        return tuple(dict.fromkeys(note for read in reads for note in read.notes))

    def _read(self, part: str) -> Read:
        folder = self._parts[part]
        walk = Walk(folder, PICTURE_SUFFIXES)
        loose, persons, left_out = walk.entries(folder)
        crops: list[tuple[Path, str]] = []
        for person in persons:
            pictures = walk.pictures(person)
            crops += [(path, person.name) for path in pictures.paths]
            left_out += pictures.left_out
        if not crops:
            raise DataError(f"{folder} holds no crops: {_LAYOUT}")
        cameras, camera_note = self._cameras(crops)
        pids = {name: pid for pid, name in enumerate(self._persons, start=1)}
        samples = tuple(Sample(path, pids[name], camera) for (path, name), camera in zip(crops, cameras, strict=True))
        notes = [*left_out.notes(), camera_note]
        if loose:
            notes.append(f"left out: {counted(len(loose), 'picture')} in no person's folder, such as {loose[0].name}")
        return Read(samples, tuple(f"{folder.name}: {note}" for note in notes))

    def _cameras(self, crops: Sequence[tuple[Path, str]]) -> tuple[list[int], str]:
        """The crops' cameras by file name, by subfolder, or unknown, the same way for all crops; and which way."""
        matches = [_CAMERA.search(path.stem) for path, _ in crops]
        if all(matches):
            return [int(match[match.lastindex or 0]) for match in matches if match], "cameras by the names of the files"
        if any(matches):
            with_one, without = (
                next(path for (path, _), match in zip(crops, matches, strict=True) if bool(match) is there)
                for there in (True, False)
            )
            raise DataError(
                f"the name of {with_one} has a camera (..._c3...), but {without} has none: give it in all names or "
                "in none"
            )
        folders = [path.parent.name for path, _ in crops]
        if any(folder == person for folder, (_, person) in zip(folders, crops, strict=True)):
            return [NO_CAMERA] * len(crops), "cameras unknown: neither names (..._c3...) nor subfolders say them"
        return number_names(folders), f"cameras by the names of subfolders: {len(set(folders)):,}"
