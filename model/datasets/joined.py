"""Several data sets joined for training."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain

from model.datasets.base import NO_CAMERA, DataSet, EvaluationSplit, PartName, PartSize, Sample, hold_out
from model.errors import DataError

_SEPARATOR = " + "
_BOXES = re.compile(r" \((?:labeled|detected)\)")


class Joined:
    """The concatenated training parts of several data sets; pids and cameras are renumbered to be distinct."""

    official: Mapping[str, PartSize] = {}

    def __init__(self, data_sets: Sequence[DataSet]) -> None:
        self._data_sets = data_sets
        self.first = data_sets[0]
        self.name = _SEPARATOR.join(data_set.name for data_set in data_sets)
        self.terms = "; ".join(f"{data_set.name}: {data_set.terms}" for data_set in data_sets)

    def train(self) -> tuple[Sample, ...]:
        return tuple(chain.from_iterable(self.parts()))

    def parts(self) -> list[tuple[Sample, ...]]:
        """The training crops of each data set, numbered as in `train`; the first data set keeps its numbers."""
        parts: list[tuple[Sample, ...]] = []
        pids = cameras = 0
        for source, data_set in enumerate(self._data_sets):
            part = tuple(
                Sample(
                    sample.path,
                    sample.pid + pids,
                    sample.camera + cameras if sample.camera != NO_CAMERA else NO_CAMERA,
                    source,
                )
                for sample in data_set.train()
            )
            pids = max([pids, *(sample.pid for sample in part)])
            cameras = max([cameras, *(sample.camera + 1 for sample in part)])
            parts.append(part)
        return parts

    def has_test(self) -> bool:
        return False

    def notes(self, part: PartName) -> tuple[str, ...]:
        return tuple(f"{data_set.name}: {note}" for data_set in self._data_sets for note in data_set.notes(part))

    def test(self) -> EvaluationSplit:
        raise DataError(f"{self.name} have no common test part: evaluate on each alone")


def first_of(data_set: DataSet) -> DataSet:
    """The first data set of a joined one, or the data set itself."""
    return data_set.first if isinstance(data_set, Joined) else data_set


def hold_out_of_first(data_set: DataSet, identities: int) -> tuple[tuple[Sample, ...], EvaluationSplit]:
    """`hold_out` on a data set, or on the first of a joined one: returns the remaining crops of all, and the split.

    The other data sets stay whole. Raises DataError for too few persons.
    """
    if not isinstance(data_set, Joined):
        return hold_out(data_set.train(), identities)
    first, *others = data_set.parts()
    rest, split = hold_out(first, identities)
    return tuple(chain(rest, *others)), split


def first_name(joined: str) -> str:
    """The name of the first data set in a joined name."""
    return joined.partition(_SEPARATOR)[0]


def is_among(name: str, joined: str) -> bool:
    """Whether the data set `name` is in a joined name.

    Labelled and detected boxes show the same persons, so they count as the same data set.
    """
    return f"{_SEPARATOR}{_place(name)}{_SEPARATOR}" in f"{_SEPARATOR}{_place(joined)}{_SEPARATOR}"


def is_first(name: str, joined: str) -> bool:
    """Whether the data set `name` is the first in a joined name: persons are only held out of the first."""
    return f"{_place(joined)}{_SEPARATOR}".startswith(f"{_place(name)}{_SEPARATOR}")


def _place(name: str) -> str:
    """A name without the kind of boxes."""
    return _BOXES.sub("", name)
