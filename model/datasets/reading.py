"""Reading crops with labels in their file names."""

import re
from collections.abc import Callable
from pathlib import Path

from model.datasets.base import DISTRACTOR, JUNK, Sample
from model.errors import DataError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Suffixes of crops; other files, such as Thumbs.db, are ignored."""


def find_root(root: Path, inner: tuple[str, ...], parts: tuple[str, ...], layout: str) -> Path:
    """The folder that holds at least one of `parts`: `root`, or one of the folders `inner` in it.

    So the parent folder, where the archive was unpacked, works too. Raises DataError with the `layout`.
    """
    for folder in (root, *(root / name for name in inner)):
        if any((folder / part).is_dir() for part in parts):
            return folder
    if root.name in parts and root.is_dir():
        raise DataError(f"{root} is one part of the data set: give its parent folder, {root.parent}")
    what = "is missing" if not root.is_dir() else f"holds none of {', '.join(parts)}"
    raise DataError(f"{root} {what}: {layout}")


def read_named(
    folder: Path, pattern: re.Pattern[str], example: str, layout: str, number: Callable[[str], int] = int
) -> tuple[Sample, ...]:
    """The crops of a folder whose names match the pattern, with the groups pid and camera.

    example: an example of such a name. Raises DataError if the folder is missing or has no matching file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: {layout}")
    samples = tuple(
        Sample(path, number(match["pid"]), int(match["camera"]))
        for path in sorted(folder.iterdir())
        if (match := pattern.match(path.name))
    )
    if not samples:
        raise DataError(f"{folder} holds no crop named like {example}")
    return samples


def without_junk(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples that an evaluation uses: all but junk."""
    return tuple(sample for sample in samples if sample.pid != JUNK)


def persons_only(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples for training: neither junk nor distractors."""
    return tuple(sample for sample in samples if sample.pid not in (JUNK, DISTRACTOR))
