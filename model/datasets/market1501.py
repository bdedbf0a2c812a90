"""Market-1501 (Zheng et al., ICCV 2015): six cameras before a supermarket, 1,501 identities."""

import re
from pathlib import Path

from model.datasets.base import JUNK, EvaluationSplit, Sample
from model.errors import DataError

_NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d+)_\d+\.jpg(?:\.jpg)?$")


class Market1501:
    """The folder with `bounding_box_train`, and, for the official test, `query` and `bounding_box_test`."""

    name = "Market-1501"
    terms = "research use only, no redistribution of the pictures (Zheng et al., ICCV 2015)"

    def __init__(self, root: Path) -> None:
        self._root = root

    def train(self) -> tuple[Sample, ...]:
        return self._read("bounding_box_train")

    def has_test(self) -> bool:
        return all((self._root / part).is_dir() for part in ("query", "bounding_box_test"))

    def test(self) -> EvaluationSplit:
        gallery = self._read("bounding_box_test")
        return EvaluationSplit(
            query=self._read("query"),
            gallery=tuple(sample for sample in gallery if sample.pid != JUNK),
        )

    def _read(self, part: str) -> tuple[Sample, ...]:
        folder = self._root / part
        if not folder.is_dir():
            raise DataError(
                f"{folder} is missing: a Market-1501 folder holds bounding_box_train, bounding_box_test and query"
            )
        samples = tuple(
            Sample(path, int(match[1]), int(match[2]))
            for path in sorted(folder.iterdir())
            if (match := market_name(path.name))
        )
        if not samples:
            raise DataError(f"{folder} holds no crop named like 0002_c1s1_000451_03.jpg")
        return samples


def market_name(file_name: str) -> re.Match[str] | None:
    """Match a name such as `0002_c1s1_000451_03.jpg`; groups: pid (-1 is junk), camera, sequence, frame."""
    return _NAME.match(file_name)
