"""Reading labelled crops: shared parts of the data sets."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from model.datasets.base import DISTRACTOR, JUNK, Sample
from model.errors import DataError, counted, shortened
from model.folders import Walk

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Other files, such as Thumbs.db, are left out."""

ANY_PICTURE = r"\.(?:jpe?g|png|webp|bmp)"
"""The suffix of a picture in a pattern of file names that ignores case."""

_DIGITS = re.compile("[0-9]{1,18}")  # those of 64 bits

YOUR_OWN_TERMS = "your own: whatever you may do with these pictures"
"""The terms of use of a user's crops."""


class Read(NamedTuple):
    """The crops of a part, and what was left out or assumed."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def find_root(root: Path, inner: tuple[str, ...], parts: tuple[str, ...], layout: str) -> Path:
    """The folder that holds at least one of `parts`: `root`, or one of the folders `inner` in it.

    So the folder in which the archive was unpacked works too. Raises DataError with the `layout`.
    """
    for folder in (root, *(root / name for name in inner)):
        if any((folder / part).is_dir() for part in parts):
            return folder
    if root.name in parts and root.is_dir():
        raise DataError(f"{root} is one part of the data set: give its parent folder, {root.parent}")
    problem = f"holds none of {', '.join(parts)}" if root.is_dir() else "is missing"
    raise DataError(f"{root} {problem}: {layout}")


def read_named(folder: Path, pattern: re.Pattern[str], example: str, layout: str) -> Read:
    """The crops of a folder whose names match the pattern, which has the groups pid and camera.

    example: a matching name. Raises DataError if the folder is missing or has no matching file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: {layout}")
    pictures, folders, left_out = Walk(folder, PICTURE_SUFFIXES).entries(folder)
    matches = [(path, pattern.fullmatch(path.name)) for path in pictures]
    samples = tuple(Sample(path, int(match["pid"]), int(match["camera"])) for path, match in matches if match)
    if not samples:
        raise DataError(f"{folder} holds no crop named like {example}")
    others = [path.name for path, match in matches if not match]
    notes = [f"{folder.name}: {note}" for note in left_out.notes()]
    if others:
        named = shortened(others)
        notes.append(f"{folder.name}: left out: {counted(len(others), 'picture')} not named like {example} ({named})")
    if folders:
        named = shortened([path.name for path in folders])
        notes.append(f"{folder.name}: left out: {counted(len(folders), 'folder')} in it ({named})")
    return Read(samples, (*notes, *_merged_note(folder, [match["pid"] for _, match in matches if match])))


def _merged_note(folder: Path, pids: Sequence[str]) -> Iterator[str]:
    """A note where one person is written in several ways, such as 0002 and 00002."""
    written: dict[int, set[str]] = defaultdict(set)
    for pid in pids:
        written[int(pid)].add(pid)
    merged = sorted(name for names in written.values() if len(names) > 1 for name in names)
    if merged:
        yield f"{folder.name}: persons written in several ways count as one: {shortened(merged)}"


def numbers_of(names: Sequence[str]) -> list[int]:
    """Labels as numbers from 1 on, one for each distinct name.

    Whole numbers in digits 0-9 are used as they are if no two names are the same number; a 0 becomes the number after
    the largest. Else the names are numbered in sorted order.

    >>> numbers_of(["7", "0", "9"]), numbers_of(["1_11", "11_1"]), numbers_of(["01", "1"])
    ([7, 10, 9], [2, 1], [1, 2])
    """
    distinct = set(names)
    if not all(_DIGITS.fullmatch(name) for name in distinct) or len({int(name) for name in distinct}) < len(distinct):
        return number_names(names)
    after = max(map(int, distinct), default=0) + 1
    return [int(name) or after for name in names]


def number_names(names: Sequence[str]) -> list[int]:
    """The position of each name among the sorted distinct names, from 1."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)), start=1)}
    return [numbers[name] for name in names]


def without_junk(read: Read) -> Read:
    """What an evaluation uses: all but junk."""
    return _without(read, {JUNK: "of junk (person -1)"})


def persons_only(read: Read) -> Read:
    """What training uses: neither junk nor distractors."""
    return _without(read, {JUNK: "of junk (person -1)", DISTRACTOR: "of distractors (person 0)"})


def _without(read: Read, names: Mapping[int, str]) -> Read:
    counts = Counter(sample.pid for sample in read.samples)
    notes = tuple(f"left out: {counted(counts[pid], 'crop')} {name}" for pid, name in names.items() if counts[pid])
    return Read(tuple(sample for sample in read.samples if sample.pid not in names), (*read.notes, *notes))
