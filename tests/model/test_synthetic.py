"""Drawn crops as a data set, and the shipped ones."""

from pathlib import Path

import pytest
from PIL import Image

from model.datasets import open_data_set
from model.datasets.base import findable_persons
from model.datasets.synthetic import DRAWN_PEOPLE, MANIFEST, Synthetic
from model.errors import DataError
from tests.model.drawn_people import copy_people


def test_the_shipped_crops_show_forty_persons_by_four_cameras_in_less_than_4_mb() -> None:
    samples = Synthetic(DRAWN_PEOPLE).train()
    assert findable_persons(samples) == list(range(1, 41))
    assert {sample.camera for sample in samples} == {1, 2, 3, 4}
    files = {path for path in DRAWN_PEOPLE.rglob("*") if path.is_file()}
    assert files == {sample.path for sample in samples} | {DRAWN_PEOPLE / MANIFEST}
    assert sum(path.stat().st_size for path in files) < 4e6
    for sample in samples:
        with Image.open(sample.path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (80, 160))


def test_a_folder_of_drawn_crops_is_a_data_set_of_training_crops(tmp_path: Path) -> None:
    data = open_data_set(f"synthetic:{copy_people(tmp_path, range(1, 5))}")
    samples = data.train()
    assert {sample.pid for sample in samples} == {1, 2, 3, 4}
    assert all(sample.path.is_file() for sample in samples)
    assert not data.has_test()
    with pytest.raises(DataError, match="hold identities out"):
        data.test()


@pytest.mark.parametrize(
    "content", [None, "file,camera_id\na.jpg,lobby\n", "file,camera_id,person_id\na.jpg,lobby,x\n"]
)
def test_a_folder_without_a_fitting_manifest_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=MANIFEST):
        Synthetic(tmp_path).train()
