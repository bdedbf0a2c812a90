"""Drawn crops of invented persons who walk past several cameras. `drawing/` draws them; some are shipped."""

import csv
from collections.abc import Mapping
from pathlib import Path

from model.datasets.base import EvaluationSplit, PartName, PartSize, Sample
from model.errors import DataError

DRAWN_PEOPLE = Path(__file__).parent / "drawn"
"""The shipped drawn crops: 40 persons seen by four cameras, a folder for each camera, and their manifest."""

MANIFEST = "manifest.csv"


class Synthetic:
    """A folder of drawn crops with their manifest, as a data set with a training part only."""

    name = "synthetic"
    terms = "drawn by Passerby, shows nobody, free to use"
    official: Mapping[str, PartSize] = {}

    def __init__(self, root: Path) -> None:
        self._root = root

    def train(self) -> tuple[Sample, ...]:
        path = self._root / MANIFEST
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            cameras = sorted({row["camera_id"] for row in rows})
            return tuple(
                Sample(self._root / row["file"], int(row["person_id"]), cameras.index(row["camera_id"]) + 1)
                for row in rows
            )
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is no manifest of drawn crops: {error}") from error

    def has_test(self) -> bool:
        return False

    def notes(self, part: PartName) -> tuple[str, ...]:
        return ()

    def test(self) -> EvaluationSplit:
        raise DataError("drawn crops have no test part: hold identities out instead")
