"""Which splits can be judged, the rule for persons with one crop a camera, and all persons of a data set."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from model.datasets.base import (
    DISTRACTOR,
    NO_CAMERA,
    DataSet,
    EvaluationSplit,
    Sample,
    evaluation_split,
    findable_persons,
)
from model.datasets.msmt17 import MSMT17
from model.errors import DataError

SAME_CAMERA = "count crops by the same camera with `evaluate --same-camera`"
"""What to do where there are no crops by a second camera."""

Label = tuple[int, int]
"""The person and the camera of a crop."""


class QueryRule(StrEnum):
    """Which crops of a person are queries; the others are the gallery."""

    CAMERA = "one query a person and camera"
    PERSON = "one query a person"


@dataclass(frozen=True)
class JudgedSplit:
    """A split in which at least one query has a right answer, and the rule of its queries."""

    split: EvaluationSplit
    rule: QueryRule


def judgeable(split: EvaluationSplit, seed: int = 0) -> JudgedSplit:
    """The split of held-out persons or of all persons; by one query a person where one a camera leaves too little.

    With one query a person and camera, a person with one crop a camera has no crop in the gallery, so nobody can find
    it. If that holds for more than half of the persons, one random crop of each person is a query and all its other
    crops are in the gallery. seed: of this choice, which depends on nothing else but the pids and file names.
    """
    persons = {sample.pid for sample in split.query}
    answers = have_answers(labels_of(split.query), labels_of(split.gallery))
    found = {sample.pid for sample, right in zip(split.query, answers, strict=True) if right}
    if 2 * len(found) >= len(persons):
        return JudgedSplit(split, QueryRule.CAMERA)
    crops_of: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted((*split.query, *split.gallery), key=lambda sample: sample.path.name):
        crops_of[sample.pid].append(sample)
    rng = np.random.default_rng((seed, 1))
    query, gallery = [], []
    for pid in sorted(crops_of):
        crops = crops_of[pid]
        if pid in persons:
            query.append(crops.pop(int(rng.integers(len(crops)))))
        gallery += crops
    return JudgedSplit(EvaluationSplit(tuple(query), tuple(gallery)), QueryRule.PERSON)


def labels_of(samples: Iterable[Sample]) -> list[Label]:
    """The person and the camera of each crop."""
    return [(sample.pid, sample.camera) for sample in samples]


def have_answers(query: Iterable[Label], gallery: Iterable[Label], same_camera: bool = False) -> list[bool]:
    """Whether each query has a right answer in the gallery: a crop of its person by another or an unknown camera.

    same_camera: whether crops by the query's camera are right answers, too.
    """
    cameras_of: dict[int, set[int]] = defaultdict(set)
    for pid, camera in gallery:
        cameras_of[pid].add(camera)
    return [
        bool(cameras_of[pid] - (set() if same_camera or camera == NO_CAMERA else {camera})) for pid, camera in query
    ]


def require_answers(query: Sequence[Label], gallery: Sequence[Label], name: str, same_camera: bool = False) -> None:
    """Raise DataError, with what to do, if no query of the split `name` has a right answer in the gallery."""
    if any(have_answers(query, gallery, same_camera)):
        return
    missing = "crops of the queries' persons"
    if not query or not gallery:
        reason, missing = f"there are {len(query)} queries and {len(gallery)} crops in the gallery", "crops"
    elif not {pid for pid, _ in query} & {pid for pid, _ in gallery}:
        reason = "no person of the queries is in it"
    else:
        reason = "its crops of each query's person are by the query's own camera"
        missing = f"crops by another camera, or {SAME_CAMERA}"
    raise DataError(f"{name}: no query has a right answer in the gallery, as {reason}: add {missing}")


def require_findable(samples: Sequence[Sample], name: str, otherwise: str = SAME_CAMERA) -> None:
    """Raise DataError if no person of the data set `name` can be both query and right answer.

    otherwise: what else to do where crops by a second camera are missing.
    """
    if findable_persons(samples):
        return
    cameras = {sample.camera for sample in samples}
    persons = len({sample.pid for sample in samples})
    if cameras == {NO_CAMERA}:
        reason, missing = f"none of {persons} persons is on two crops", "more crops of the same persons"
    elif len(cameras) == 1:
        reason = "all crops are by one camera"
        missing = f"crops of the same persons by another camera, or {otherwise}"
    else:
        reason = f"none of {persons} persons is seen by two cameras"
        missing = f"crops of the same persons by another camera, or {otherwise}"
    raise DataError(f"{name}: {reason}, so no query has a right answer: add {missing}")


def require_held_out(samples: Sequence[Sample], identities: int, name: str, otherwise: str = SAME_CAMERA) -> None:
    """Raise DataError, with what to do, if so many persons of the data set `name` cannot be held out.

    otherwise: as in `require_findable`.
    """
    require_findable(samples, name, otherwise)
    persons, findable = len({sample.pid for sample in samples}), len(findable_persons(samples))
    most = min(findable, persons - 1)
    if identities <= most:
        return
    seen = "on two crops or more" if {sample.camera for sample in samples} == {NO_CAMERA} else "seen by two cameras"
    raise DataError(
        f"cannot hold out {identities} identities: {name} has {persons}, {findable} of them {seen}, and one must be "
        f"left: {f'hold out {most} or fewer' if most else 'add persons'}"
    )


def without_cameras(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples as if their cameras were unknown."""
    return tuple(replace(sample, camera=NO_CAMERA) for sample in samples)


def all_persons(data_set: DataSet) -> tuple[Sample, ...]:
    """The crops of all parts of a data set that are there, with distractors. Raises DataError if none is there."""
    if not data_set.has_test():
        return data_set.train()
    test = data_set.test()
    tested = (*test.query, *test.gallery)
    try:
        trained = data_set.train()
    except DataError:  # a data set may be there without its training part
        return tested
    if isinstance(data_set, MSMT17):  # its lists count the persons of each part from the same number
        first = max(sample.pid for sample in trained)
        tested = tuple(replace(sample, pid=sample.pid + first) for sample in tested)
    return (*trained, *tested)


def split_of_all(samples: Sequence[Sample], name: str, seed: int = 0) -> JudgedSplit:
    """A split of all findable persons of the data set `name`, with its distractors in the gallery. Raises DataError."""
    persons = [sample for sample in samples if sample.pid != DISTRACTOR]
    require_findable(persons, name)
    judged = judgeable(evaluation_split(persons, seed), seed)
    distractors = tuple(sample for sample in samples if sample.pid == DISTRACTOR)
    return replace(judged, split=EvaluationSplit(judged.split.query, (*judged.split.gallery, *distractors)))
