"""What every data set gives: labelled crops, split for training and for evaluation."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.errors import DataError

JUNK = -1
"""The pid of crops that an evaluation ignores."""


@dataclass(frozen=True)
class Sample:
    """One labelled crop: its file, the person's number (`pid`, 0 for distractors) and the camera's number."""

    path: Path
    pid: int
    camera: int


@dataclass(frozen=True)
class EvaluationSplit:
    """Queries, and the gallery in which they are looked for."""

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]


class DataSet(Protocol):
    """A data set on disk. Methods raise DataError where their part of it is missing or not laid out as it should be."""

    name: str
    terms: str

    def train(self) -> tuple[Sample, ...]:
        """The training crops."""

    def has_test(self) -> bool:
        """Whether the official test part is there."""

    def test(self) -> EvaluationSplit:
        """The official test part."""


def hold_out(samples: Sequence[Sample], identities: int, seed: int = 0) -> tuple[tuple[Sample, ...], EvaluationSplit]:
    """Set `identities` persons aside for validation: the other persons' crops, and a split made of theirs.

    As in the official splits, a person's query is one crop from each camera that saw it, the rest is the gallery.
    Only persons seen by two cameras or more are held out, as no other can be found across cameras. The choice depends
    on the seed and the persons' numbers alone. Raises DataError if there are too few.
    """
    by_person: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.path.name):
        by_person[sample.pid].append(sample)
    seen_twice = [pid for pid, own in sorted(by_person.items()) if len({s.camera for s in own}) > 1]
    if identities >= len(by_person) or identities > len(seen_twice):
        raise DataError(
            f"cannot hold out {identities} identities: the data has {len(by_person)}, "
            f"{len(seen_twice)} of them seen by two cameras or more"
        )
    rng = np.random.default_rng(seed)
    held = {seen_twice[i] for i in rng.permutation(len(seen_twice))[:identities]}
    query, gallery = [], []
    for pid in sorted(held):
        by_camera: dict[int, list[Sample]] = defaultdict(list)
        for sample in by_person[pid]:
            by_camera[sample.camera].append(sample)
        for camera in sorted(by_camera):
            crops = by_camera[camera]
            chosen = int(rng.integers(len(crops)))
            query.append(crops[chosen])
            gallery.extend(crops[:chosen] + crops[chosen + 1 :])
    rest = tuple(sample for sample in samples if sample.pid not in held)
    return rest, EvaluationSplit(tuple(query), tuple(gallery))
