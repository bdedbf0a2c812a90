"""A checkpoint's training data, and how evaluated data relates to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from model.checkpoint import UNKNOWN_DATA, TrainingData
from model.datasets.joined import first_name, is_among, is_first


class HasTrainingData(Protocol):
    """The metadata of a checkpoint or a plain network."""

    @property
    def model_id(self) -> str: ...

    @property
    def training_data(self) -> TrainingData: ...


class Relation(StrEnum):
    """How evaluated data relates to a checkpoint's training data."""

    UNSEEN = "unseen place"
    UNKNOWN = "not known"
    IN_DOMAIN = "in-domain"
    SEEN = "in-domain, these persons"


@dataclass(frozen=True)
class Part:
    """The evaluated part of a data set: its official test part, `identities` held out with `seed`, or all persons."""

    kind: Literal["test", "held out", "all"]
    identities: int = 0
    seed: int = 0


def sources(data: TrainingData) -> Iterator[TrainingData]:
    """A checkpoint's training data, then that of the checkpoint it started from, and so on."""
    yield data
    if data.started_from_data:
        yield from sources(data.started_from_data)


def held_out_of(name: str, data: TrainingData) -> list[Part]:
    """The parts of the data set `name` that any training of a checkpoint held out."""
    return [
        Part("held out", source.held_out_identities, source.hold_out_seed)
        for source in sources(data)
        if source.held_out_identities and is_first(name, source.name)
    ]


def relation(data: TrainingData, name: str, part: Part) -> Relation:
    """How a part of the data set `name` relates to a checkpoint's training data."""
    closest = Relation.UNSEEN
    for source in sources(data):
        if is_among(name, source.name):
            if part.kind != "test" and not _was_held_out(source, name, part):
                return Relation.SEEN
            closest = Relation.IN_DOMAIN
        elif closest is Relation.UNSEEN and _is_incomplete(source):
            closest = Relation.UNKNOWN
    return closest


def relation_of_result(data: TrainingData, name: str) -> Relation:
    """How the data set `name` of a recorded result relates to the checkpoint's training data."""
    return relation(data, name, Part("test"))


def training_summary(metadata: HasTrainingData) -> str:
    """A checkpoint's training data, teacher and starting checkpoint, as part of a sentence."""
    return f"{metadata.model_id} was trained on {_summary(metadata.training_data)}"


def _summary(data: TrainingData) -> str:
    phrases = [data.name if data.name != UNKNOWN_DATA else "unknown data"]
    if data.identities:
        phrases.append(f"({data.identities:,} persons)")
    if data.held_out_identities:
        phrases.append(f"without {data.held_out_identities} held out of {first_name(data.name)}")
    text = " ".join(phrases)
    if data.teacher:
        text += f", with the teacher {data.teacher}"
    if data.started_from and data.started_from_data:
        text += f", starting from {data.started_from}, which was trained on {_summary(data.started_from_data)}"
    elif data.started_from:
        text += f", starting from {data.started_from}, whose data is not recorded"
    return text


def _was_held_out(source: TrainingData, name: str, part: Part) -> bool:
    """Whether training held these persons out: of the same seed, a smaller part is a subset of a larger one."""
    return (
        part.kind == "held out"
        and is_first(name, source.name)
        and part.seed == source.hold_out_seed
        and part.identities <= source.held_out_identities
    )


def _is_incomplete(source: TrainingData) -> bool:
    """Whether the record of a training does not name all data."""
    return source.name == UNKNOWN_DATA or (source.started_from is not None and source.started_from_data is None)
