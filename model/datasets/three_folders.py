"""The layout that Market-1501, DukeMTMC-reID and CUHK03-NP share: three folders of crops, labels in their names."""

import re
from collections.abc import Mapping
from pathlib import Path

from model.datasets.base import EvaluationSplit, PartName, PartSize, Sample
from model.datasets.reading import Read, find_root, persons_only, read_named, without_junk

PARTS = ("bounding_box_train", "query", "bounding_box_test")


class ThreeFolders:
    """A data set with the folders `bounding_box_train`, `query` and `bounding_box_test`."""

    def __init__(
        self,
        root: Path,
        name: str,
        terms: str,
        official: Mapping[str, PartSize],
        pattern: re.Pattern[str],
        example: str,
        inner: tuple[str, ...],
    ) -> None:
        """pattern: of file names like `example`, with the groups pid and camera. inner: possible folders inside `root`.

        Raises DataError.
        """
        self.name = name
        self.terms = terms
        self.official = official
        self._pattern = pattern
        self._example = example
        self._layout = f"a folder of {name} holds {', '.join(PARTS)}"
        self._root = find_root(root, inner, PARTS, self._layout)

    def train(self) -> tuple[Sample, ...]:
        return self._train().samples

    def has_test(self) -> bool:
        return all((self._root / part).is_dir() for part in PARTS[1:])

    def test(self) -> EvaluationSplit:
        query, gallery = self._test()
        return EvaluationSplit(query.samples, gallery.samples)

    def notes(self, part: PartName) -> tuple[str, ...]:
        reads = (self._train(),) if part == "train" else self._test()
        return tuple(dict.fromkeys(note for read in reads for note in read.notes))

    def _train(self) -> Read:
        return persons_only(self._read("bounding_box_train"))

    def _test(self) -> tuple[Read, Read]:
        return without_junk(self._read("query")), without_junk(self._read("bounding_box_test"))

    def _read(self, part: str) -> Read:
        return read_named(self._root / part, self._pattern, self._example, self._layout)
