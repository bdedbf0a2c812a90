"""The layout that Market-1501, DukeMTMC-reID and CUHK03-NP share: three folders of crops, labels in their names."""

import re
from collections.abc import Mapping
from pathlib import Path

from model.datasets.base import EvaluationSplit, PartSize, Sample
from model.datasets.reading import find_root, persons_only, read_named, without_junk

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
        return persons_only(self._read("bounding_box_train"))

    def has_test(self) -> bool:
        return all((self._root / part).is_dir() for part in PARTS[1:])

    def test(self) -> EvaluationSplit:
        return EvaluationSplit(
            query=without_junk(self._read("query")), gallery=without_junk(self._read("bounding_box_test"))
        )

    def _read(self, part: str) -> tuple[Sample, ...]:
        return read_named(self._root / part, self._pattern, self._example, self._layout)
