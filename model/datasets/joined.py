"""Several data sets trained on together."""

from collections.abc import Mapping, Sequence

from model.datasets.base import NO_CAMERA, DataSet, EvaluationSplit, PartSize, Sample
from model.errors import DataError


class Joined:
    """The training parts of several data sets one after the other, no person and no camera in two of them."""

    official: Mapping[str, PartSize] = {}

    def __init__(self, data_sets: Sequence[DataSet]) -> None:
        self._data_sets = data_sets
        self.name = " + ".join(data_set.name for data_set in data_sets)
        self.terms = "; ".join(f"{data_set.name}: {data_set.terms}" for data_set in data_sets)

    def train(self) -> tuple[Sample, ...]:
        joined: list[Sample] = []
        pids = cameras = 0
        for source, data_set in enumerate(self._data_sets):
            samples = data_set.train()
            joined += [
                Sample(
                    sample.path,
                    sample.pid + pids,
                    sample.camera + cameras if sample.camera != NO_CAMERA else NO_CAMERA,
                    source,
                )
                for sample in samples
            ]
            pids = max(sample.pid for sample in joined)
            cameras = max(0, *(sample.camera + 1 for sample in joined))
        return tuple(joined)

    def has_test(self) -> bool:
        return False

    def test(self) -> EvaluationSplit:
        raise DataError(f"{self.name} have no test part in common: judge on each alone")
