"""Which part of a data set a checkpoint is looked at on."""

from dataclasses import dataclass

from model.checkpoint import TrainingData
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out, size_notes
from model.errors import DataError


@dataclass(frozen=True)
class ChosenSplit:
    """Queries and gallery; `name` says of what; `seen`: whether the checkpoint was trained on these persons.

    notes: where the data is not what its authors published.
    """

    split: EvaluationSplit
    name: str
    seen: bool
    notes: tuple[str, ...] = ()


def choose_split(data: str, trained_on: TrainingData, hold_out_identities: int | None) -> ChosenSplit:
    """The official test part; or identities held out of the training part, as asked or as the checkpoint says.

    data: KIND:FOLDER. Raises DataError.
    """
    data_set = open_data_set(data)
    if hold_out_identities is None and data_set.has_test():
        split = data_set.test()
        notes = size_notes(data_set, {"query": split.query, "gallery": split.gallery})
        return ChosenSplit(split, f"{data_set.name}, test part", False, notes)
    same_data = trained_on.name == data_set.name
    held_out = hold_out_identities or (trained_on.held_out_identities if same_data else 0)
    if not held_out:
        raise DataError(
            f"{data} has no test part, and the checkpoint tells of no identities held out of it; "
            "--hold-out N takes N identities of its training part"
        )
    _, split = hold_out(data_set.train(), held_out, trained_on.hold_out_seed)
    seen = same_data and trained_on.held_out_identities < held_out
    return ChosenSplit(split, f"{data_set.name}, {held_out} identities held out of the training part", seen)
