"""The data set interface, and splits of labelled crops for training and evaluation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from model.errors import DataError

JUNK = -1
"""The pid of crops that an evaluation ignores."""

DISTRACTOR = 0
"""The pid of gallery crops of persons without queries."""

NO_CAMERA = -1
"""The camera number of crops from an unknown camera. Two such crops never count as from the same camera."""


@dataclass(frozen=True)
class Sample:
    """A labelled crop.

    path: its file. pid: the person's number, JUNK or DISTRACTOR. camera: the camera's number, or NO_CAMERA. source: the
    number of its data set in a joined data set, from 0.
    """

    path: Path
    pid: int
    camera: int
    source: int = 0


@dataclass(frozen=True)
class EvaluationSplit:
    """Queries and gallery of an evaluation."""

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]


@dataclass(frozen=True)
class PartSize:
    """The number of crops and of persons, without distractors, in a part of a data set."""

    crops: int
    identities: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "PartSize":
        """The size of a part."""
        return cls(len(samples), len({sample.pid for sample in samples} - {DISTRACTOR}))

    def __str__(self) -> str:
        return f"{self.crops:,} crops of {self.identities:,} persons"


PartName = Literal["train", "test"]


class DataSet(Protocol):
    """A data set on disk. Methods raise DataError if their part is missing or has another layout.

    name: as in papers. terms: of use. official: the published sizes of its parts `train`, `query` and `gallery`.
    """

    name: str
    terms: str
    official: Mapping[str, PartSize]

    def train(self) -> tuple[Sample, ...]:
        """The training crops, without junk and distractors."""

    def has_test(self) -> bool:
        """Whether the official test part exists."""

    def test(self) -> EvaluationSplit:
        """The official test part, without junk."""

    def notes(self, part: PartName) -> tuple[str, ...]:
        """What the reader leaves out of a part, with numbers and reasons, and what it assumes."""


def size_notes(data_set: DataSet, parts: Mapping[str, Sequence[Sample]]) -> tuple[str, ...]:
    """A sentence for each part whose size differs from the official one.

    Another size is not an error, as a user may have only some of the files.
    """
    return tuple(
        f"the {part} part of {data_set.name} holds {PartSize.of(samples)} here, officially {data_set.official[part]}: "
        "results cannot be compared with published ones"
        for part, samples in parts.items()
        if part in data_set.official and PartSize.of(samples) != data_set.official[part]
    )


def hold_out(samples: Sequence[Sample], identities: int, seed: int = 0) -> tuple[tuple[Sample, ...], EvaluationSplit]:
    """Hold out `identities` persons: returns the crops of the other persons, and a split of the held-out persons.

    Only `findable_persons` are held out; queries and gallery are as in `evaluation_split`. The choice depends only on
    the seed and the pids. Raises DataError for too few persons.
    """
    by_person = _by_person(samples)
    findable = findable_persons(samples)
    if identities >= len(by_person) or identities > len(findable):
        raise DataError(
            f"cannot hold out {identities} identities: the data has {len(by_person)}, "
            f"{len(findable)} of them seen by two cameras or more"
        )
    rng = np.random.default_rng(seed)
    held_out = {findable[i] for i in rng.permutation(len(findable))[:identities]}
    split = _split({pid: by_person[pid] for pid in sorted(held_out)}, rng)
    return tuple(sample for sample in samples if sample.pid not in held_out), split


def evaluation_split(samples: Sequence[Sample], seed: int = 0) -> EvaluationSplit:
    """A split of all `findable_persons`, for data that was not used for training.

    As in the official splits, one random crop of each person from each camera is a query, the rest is the gallery; if
    cameras are unknown, one crop of each person is a query. Raises DataError if no person is findable.
    """
    findable = findable_persons(samples)
    if not findable:
        raise DataError(
            f"none of {len(_by_person(samples))} persons is seen by two cameras, so no query has a right answer"
        )
    by_person = _by_person(samples)
    return _split({pid: by_person[pid] for pid in findable}, np.random.default_rng(seed))


def findable_persons(samples: Sequence[Sample]) -> list[int]:
    """The pids, ascending, of persons seen by two cameras or more, or on two crops or more from unknown cameras."""
    return [pid for pid, crops in sorted(_by_person(samples).items()) if _is_findable(crops)]


def _by_person(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    """Each person's crops, sorted by file name."""
    by_person: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.path.name):
        by_person[sample.pid].append(sample)
    return by_person


def _split(by_person: Mapping[int, Sequence[Sample]], rng: np.random.Generator) -> EvaluationSplit:
    query, gallery = [], []
    for samples in by_person.values():
        by_camera: dict[int, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_camera[sample.camera].append(sample)
        for camera in sorted(by_camera):
            crops = by_camera[camera]
            chosen = int(rng.integers(len(crops)))
            query.append(crops[chosen])
            gallery.extend(crops[:chosen] + crops[chosen + 1 :])
    return EvaluationSplit(tuple(query), tuple(gallery))


def _is_findable(crops: Sequence[Sample]) -> bool:
    cameras = {sample.camera for sample in crops}
    return len(cameras) > 1 or (cameras == {NO_CAMERA} and len(crops) > 1)
