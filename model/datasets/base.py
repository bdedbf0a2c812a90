"""What every data set gives: labelled crops, split for training and for evaluation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.errors import DataError

JUNK = -1
"""The pid of crops that an evaluation ignores."""

DISTRACTOR = 0
"""The pid of crops in a gallery that show nobody who is asked for."""

NO_CAMERA = -1
"""The camera of crops of which nobody knows it. Two of them are never taken for crops of the same camera."""


@dataclass(frozen=True)
class Sample:
    """One labelled crop: its file, the person's number (`pid`, see JUNK and DISTRACTOR) and the camera's number.

    source: the place of its data set among those that are trained on together.
    """

    path: Path
    pid: int
    camera: int
    source: int = 0


@dataclass(frozen=True)
class EvaluationSplit:
    """Queries, and the gallery in which they are looked for."""

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]


@dataclass(frozen=True)
class PartSize:
    """How many crops a part of a data set has, and of how many persons, distractors not counted."""

    crops: int
    identities: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "PartSize":
        """That of a part which was read."""
        return cls(len(samples), len({sample.pid for sample in samples} - {DISTRACTOR}))

    def __str__(self) -> str:
        return f"{self.crops:,} crops of {self.identities:,} persons"


class DataSet(Protocol):
    """A data set on disk. Methods raise DataError where their part of it is missing or not laid out as it should be.

    name: as papers call it. terms: on which it may be used. official: the sizes of its parts `train`, `query` and
    `gallery`, where its authors give them.
    """

    name: str
    terms: str
    official: Mapping[str, PartSize]

    def train(self) -> tuple[Sample, ...]:
        """The training crops, without junk and distractors."""

    def has_test(self) -> bool:
        """Whether the official test part is there."""

    def test(self) -> EvaluationSplit:
        """The official test part, without junk."""


def size_notes(data_set: DataSet, parts: Mapping[str, Sequence[Sample]]) -> tuple[str, ...]:
    """Where parts that were read differ from the official sizes: a sentence each.

    A part of a data set may be all that somebody has, so this is no error; but figures measured on it cannot be
    compared with anybody's.
    """
    return tuple(
        f"the {part} part of {data_set.name} holds {PartSize.of(samples)} here, officially {data_set.official[part]}: "
        "results cannot be compared with published ones"
        for part, samples in parts.items()
        if part in data_set.official and PartSize.of(samples) != data_set.official[part]
    )


def hold_out(samples: Sequence[Sample], identities: int, seed: int = 0) -> tuple[tuple[Sample, ...], EvaluationSplit]:
    """Set `identities` persons aside for validation: the other persons' crops, and a split made of theirs.

    Only persons that can be found are held out (`findable_persons`); their queries and gallery are as in
    `evaluation_split`. The choice depends on the seed and the persons' numbers alone. Raises DataError if there are too
    few.
    """
    by_person = _by_person(samples)
    findable = findable_persons(samples)
    if identities >= len(by_person) or identities > len(findable):
        raise DataError(
            f"cannot hold out {identities} identities: the data has {len(by_person)}, "
            f"{len(findable)} of them seen by two cameras or more"
        )
    rng = np.random.default_rng(seed)
    held = {findable[i] for i in rng.permutation(len(findable))[:identities]}
    split = _split({pid: by_person[pid] for pid in sorted(held)}, rng)
    return tuple(sample for sample in samples if sample.pid not in held), split


def evaluation_split(samples: Sequence[Sample], seed: int = 0) -> EvaluationSplit:
    """A split of all persons that can be found (`findable_persons`), for data that nothing was learned from.

    As in the official splits, a person's query is one crop from each camera that saw it, the rest is the gallery; one
    crop altogether where the cameras are not known. The seed draws the queries. Raises DataError if there is nobody.
    """
    findable = findable_persons(samples)
    if not findable:
        raise DataError(f"none of {len(_by_person(samples))} persons is seen by two cameras, so nobody can be found")
    by_person = _by_person(samples)
    return _split({pid: by_person[pid] for pid in findable}, np.random.default_rng(seed))


def findable_persons(samples: Sequence[Sample]) -> list[int]:
    """The pids, ascending, of persons seen by two cameras or more, or on two crops of unknown cameras."""
    return [pid for pid, own in sorted(_by_person(samples).items()) if _can_be_found(own)]


def _by_person(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    """Each person's crops in the order of their files' names."""
    by_person: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.path.name):
        by_person[sample.pid].append(sample)
    return by_person


def _split(by_person: Mapping[int, Sequence[Sample]], rng: np.random.Generator) -> EvaluationSplit:
    query, gallery = [], []
    for own in by_person.values():
        by_camera: dict[int, list[Sample]] = defaultdict(list)
        for sample in own:
            by_camera[sample.camera].append(sample)
        for camera in sorted(by_camera):
            crops = by_camera[camera]
            chosen = int(rng.integers(len(crops)))
            query.append(crops[chosen])
            gallery.extend(crops[:chosen] + crops[chosen + 1 :])
    return EvaluationSplit(tuple(query), tuple(gallery))


def _can_be_found(crops: Sequence[Sample]) -> bool:
    cameras = {sample.camera for sample in crops}
    return len(cameras) > 1 or (cameras == {NO_CAMERA} and len(crops) > 1)
