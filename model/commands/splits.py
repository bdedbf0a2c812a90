"""The part of a data set to evaluate a checkpoint on, and its relation to the training data."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.checkpoint import TrainingData
from model.datasets import open_data_set
from model.datasets.base import NO_CAMERA, DataSet, EvaluationSplit, evaluation_split, hold_out, size_notes
from model.provenance import Part, Relation, held_out_of, relation

_CAVEATS = {
    Relation.UNSEEN: "an unseen place, neither these persons nor these cameras were trained on",
    Relation.UNKNOWN: "whether this place was trained on is not known",
    Relation.IN_DOMAIN: "same cameras as in training, other persons; says nothing of other cameras",
    Relation.SEEN: "the checkpoint was trained on these persons; says nothing of others",
}


@dataclass(frozen=True)
class ChosenSplit:
    """Queries and gallery of a part of the data set `data`, and its relation to the checkpoint's training data.

    notes: differences between the data set and its official sizes, and what its reader left out.
    """

    split: EvaluationSplit
    data: str
    part: Part
    relation: Relation
    notes: tuple[str, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether the checkpoint was trained on these persons."""
        return self.relation is Relation.SEEN

    @property
    def part_name(self) -> str:
        """The part as a phrase."""
        if self.part.kind == "test":
            return "test part"
        if self.part.kind == "held out":
            return f"{self.part.identities} identities held out of the training part"
        condition = "seen by two cameras or more" if _cameras_known(self.split) else "on two crops or more"
        return f"all {len({sample.pid for sample in self.split.query})} persons {condition}"

    @property
    def short_name(self) -> str:
        """The data set and the part, for a table."""
        parts = {
            "test": "test part",
            "held out": f"{self.part.identities} held out",
            "all": f"all {len({sample.pid for sample in self.split.query})} persons",
        }
        return f"{self.data}, {parts[self.part.kind]}"

    @property
    def name(self) -> str:
        """The data set and the part."""
        return f"{self.data}, {self.part_name}"

    @property
    def caveat(self) -> str:
        """How far results on this split generalise, as part of a sentence."""
        return _CAVEATS[self.relation]


def choose_split(data: str, trained_on: TrainingData, hold_out_identities: int | None) -> ChosenSplit:
    """The part of a data set that `choose_part` chooses for a checkpoint. data: KIND:FOLDER. Raises DataError."""
    data_set = open_data_set(data)
    return read_split(data_set, choose_part(data_set, [trained_on], hold_out_identities), trained_on)


def choose_part(data_set: DataSet, trained_on: Sequence[TrainingData], hold_out_identities: int | None) -> Part:
    """The part on which checkpoints with different training data are all evaluated.

    `hold_out_identities` if given; else the official test part; else the identities that training held out, the
    smallest such part where checkpoints differ; else all persons of the training part.
    """
    held_out = [part for data in trained_on for part in held_out_of(data_set.name, data)]
    smallest = min(held_out, key=lambda part: part.identities, default=None)
    if hold_out_identities is not None:
        return Part("held out", hold_out_identities, smallest.seed if smallest else 0)
    if data_set.has_test():
        return Part("test")
    return smallest or Part("all")


def read_split(data_set: DataSet, part: Part, trained_on: TrainingData) -> ChosenSplit:
    """The crops of a part, and their relation to a checkpoint's training data. Raises DataError."""
    notes = data_set.notes("test" if part.kind == "test" else "train")
    if part.kind == "test":
        split = data_set.test()
        notes = (*size_notes(data_set, {"query": split.query, "gallery": split.gallery}), *notes)
    elif part.kind == "held out":
        _, split = hold_out(data_set.train(), part.identities, part.seed)
    else:
        split = evaluation_split(data_set.train(), part.seed)
    return ChosenSplit(split, data_set.name, part, relation(trained_on, data_set.name, part), notes)


def _cameras_known(split: EvaluationSplit) -> bool:
    return any(sample.camera != NO_CAMERA for sample in split.query)
