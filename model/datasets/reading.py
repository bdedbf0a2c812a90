"""Reading labelled crops: shared parts of the data sets."""

import re
from collections.abc import Sequence
from pathlib import Path

from model.datasets.base import DISTRACTOR, JUNK, Sample
from model.errors import DataError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Other files, such as Thumbs.db, are ignored."""

YOUR_OWN_TERMS = "your own: whatever you may do with these pictures"
"""The terms of use of a user's crops."""


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


def read_named(folder: Path, pattern: re.Pattern[str], example: str, layout: str) -> tuple[Sample, ...]:
    """The crops of a folder whose names match the pattern, which has the groups pid and camera.

    example: a matching name. Raises DataError if the folder is missing or has no matching file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: {layout}")
    samples = tuple(
        Sample(path, int(match["pid"]), int(match["camera"]))
        for path in sorted(folder.iterdir())
        if (match := pattern.match(path.name))
    )
    if not samples:
        raise DataError(f"{folder} holds no crop named like {example}")
    return samples


def number_names(names: Sequence[str]) -> list[int]:
    """The position of each name among the sorted distinct names, from 1."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)), start=1)}
    return [numbers[name] for name in names]


def without_junk(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples that an evaluation uses: all but junk."""
    return tuple(sample for sample in samples if sample.pid != JUNK)


def persons_only(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples for training: neither junk nor distractors."""
    return tuple(sample for sample in samples if sample.pid not in (JUNK, DISTRACTOR))
