"""The part of a data set to evaluate a checkpoint on, and its relation to the training data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.checkpoint import TrainingData
from model.checks import require_pictures, require_text
from model.datasets import open_data_set
from model.datasets.base import (
    DISTRACTOR,
    NO_CAMERA,
    DataSet,
    EvaluationSplit,
    Sample,
    findable_persons,
    hold_out,
    size_notes,
)
from model.datasets.joined import Joined, first_of, hold_out_of_first
from model.errors import ModelError
from model.provenance import Part, Relation, held_out_of, relation
from model.splits import (
    JudgedSplit,
    QueryRule,
    all_persons,
    judgeable,
    labels_of,
    require_answers,
    require_held_out,
    split_of_all,
    without_cameras,
)

_CAVEATS = {
    Relation.UNSEEN: "an unseen place, neither these persons nor these cameras were trained on",
    Relation.UNKNOWN: "whether this place was trained on is not known",
    Relation.IN_DOMAIN: "same cameras as in training, other persons; says nothing of other cameras",
    Relation.SEEN: "the checkpoint was trained on these persons; says nothing of others",
}
_PARTLY_SEEN = "the checkpoint was trained on some of these persons; says nothing of others"


@dataclass(frozen=True)
class ChosenSplit:
    """Queries and gallery of a part of the data set `data`, and its relation to the checkpoint's training data.

    rule: of the queries, but for an official test part. notes: caveats, such as differences between the data set and
    its official sizes, and what its reader left out. partly_seen: whether training left out some of the persons, where
    `relation` is SEEN.
    """

    split: EvaluationSplit
    data: str
    part: Part
    relation: Relation
    notes: tuple[str, ...] = ()
    rule: QueryRule = QueryRule.CAMERA
    partly_seen: bool = False

    @property
    def seen(self) -> bool:
        """Whether the checkpoint was trained on these persons, or on some of them."""
        return self.relation is Relation.SEEN

    @property
    def part_name(self) -> str:
        """The part as a phrase, with the rule of its queries if that is not the usual one."""
        if self.part.kind == "test":
            return "test part"
        rule = f", {self.rule}" if self.rule is QueryRule.PERSON else ""
        if self.part.kind == "held out":
            return f"{self.part.identities} identities held out of the training part{rule}"
        condition = "seen by two cameras or more" if _cameras_known(self.split) else "on two crops or more"
        return f"all {len({sample.pid for sample in self.split.query})} persons {condition}{rule}"

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
        return _PARTLY_SEEN if self.seen and self.partly_seen else _CAVEATS[self.relation]


def check_part_options(everyone: bool, hold_out_identities: int | None) -> None:
    """Raise ModelError if --all and --hold-out are both given."""
    if everyone and hold_out_identities is not None:
        raise ModelError("--all judges all persons of the data, --hold-out N some of them: give one of the two")


def choose_split(
    data: str,
    trained_on: TrainingData,
    hold_out_identities: int | None,
    everyone: bool = False,
    same_camera: bool = False,
) -> ChosenSplit:
    """The part of a data set that `choose_part` chooses for a checkpoint, or with `everyone` all its persons.

    data: KIND:FOLDER. same_camera: as in `read_split`. Raises DataError.
    """
    data_set = open_data_set(data)
    part = Part("all") if everyone else choose_part(data_set, [trained_on], hold_out_identities)
    return read_split(data_set, part, trained_on, same_camera)


def choose_part(data_set: DataSet, trained_on: Sequence[TrainingData], hold_out_identities: int | None) -> Part:
    """The part on which checkpoints with different training data are all evaluated.

    `hold_out_identities` if given; else the official test part; else the identities that training held out, the
    smallest such part where checkpoints differ; else all persons.
    """
    held_out = [part for data in trained_on for part in held_out_of(data_set.name, data)]
    smallest = min(held_out, key=lambda part: part.identities, default=None)
    if hold_out_identities is not None:
        return Part("held out", hold_out_identities, smallest.seed if smallest else 0)
    if data_set.has_test():
        return Part("test")
    return smallest or Part("all")


def read_split(data_set: DataSet, part: Part, trained_on: TrainingData, same_camera: bool = False) -> ChosenSplit:
    """The crops of a part, and their relation to a checkpoint's training data.

    same_camera: crops by the query's own camera are right answers; where nobody is seen by two cameras, the part is
    split as if cameras were unknown. Raises DataError for a part that cannot be judged, and for missing pictures.
    """
    require_text(data_set.name)
    related = relation(trained_on, data_set.name, part)
    if part.kind == "test":
        split = data_set.test()
        notes = (*size_notes(data_set, {"query": split.query, "gallery": split.gallery}), *data_set.notes("test"))
        return _checked(ChosenSplit(split, data_set.name, part, related, notes), same_camera)
    samples = all_persons(data_set) if part.kind == "all" else data_set.train()
    if same_camera and not findable_persons([sample for sample in samples if sample.pid != DISTRACTOR]):
        samples = without_cameras(samples)
    if part.kind == "held out":
        require_held_out(samples, part.identities, data_set.name)
        judged = judgeable(hold_out(samples, part.identities, part.seed)[1], part.seed)
    else:
        judged = split_of_all(samples, data_set.name, part.seed)
    partly = part.kind == "all" and (data_set.has_test() or bool(held_out_of(data_set.name, trained_on)))
    notes = (*_rule_notes(judged), *data_set.notes("train"))
    chosen = ChosenSplit(judged.split, data_set.name, part, related, notes, judged.rule, partly_seen=partly)
    return _checked(chosen, same_camera)


def held_out_split(data_set: DataSet, identities: int) -> tuple[tuple[Sample, ...], JudgedSplit]:
    """Hold persons out of a data set, or of the first of a joined one, to judge a run: the other crops, and a split.

    Raises DataError for too few persons.
    """
    samples = data_set.parts()[0] if isinstance(data_set, Joined) else data_set.train()
    require_held_out(samples, identities, first_of(data_set).name, "train without --hold-out")
    rest, split = hold_out_of_first(data_set, identities)
    return rest, judgeable(split)


def judged_by_run(judged: JudgedSplit, data_set: DataSet, data: TrainingData) -> ChosenSplit:
    """The persons that a run with the training data `data` holds out of its first data set, as a chosen split."""
    name, part = first_of(data_set).name, Part("held out", data.held_out_identities, data.hold_out_seed)
    related = relation(data, name, part)
    return _checked(ChosenSplit(judged.split, name, part, related, _rule_notes(judged), judged.rule))


def _checked(chosen: ChosenSplit, same_camera: bool = False) -> ChosenSplit:
    """The split, with a note if its gallery shows one person. Raises DataError if it cannot be judged."""
    query, gallery = labels_of(chosen.split.query), labels_of(chosen.split.gallery)
    require_answers(query, gallery, chosen.name, same_camera)
    require_pictures((*chosen.split.query, *chosen.split.gallery))
    if len({pid for pid, _ in (*query, *gallery)}) > 1:
        return chosen
    note = "queries and gallery show one person, so there is no wrong answer and every network reaches 100 %"
    return replace(chosen, notes=(*chosen.notes, note))


def _rule_notes(judged: JudgedSplit) -> tuple[str, ...]:
    if judged.rule is QueryRule.CAMERA:
        return ()
    return (
        "most of these persons have one crop a camera, so one crop of each person is a query and the person's other "
        "crops are in the gallery",
    )


def _cameras_known(split: EvaluationSplit) -> bool:
    return any(sample.camera != NO_CAMERA for sample in split.query)
