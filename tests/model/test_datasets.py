"""Data sets are read as their layouts are, and hold out identities as the official splits do."""

from collections import Counter
from pathlib import Path

import pytest
from model_factories import write_market

from model.datasets import open_data_set
from model.datasets.base import Sample, hold_out
from model.errors import DataError


def test_market1501_is_read_with_its_odd_names(tmp_path: Path) -> None:
    root = write_market(tmp_path / "m")
    test = root / "bounding_box_test"
    some = next(test.iterdir())
    for name in ("-1_c1s1_000401_03.jpg", "0000_c2s1_000151_01.jpg", "0007_c3s3_077419_03.jpg.jpg"):
        (test / name).write_bytes(some.read_bytes())
    (test / "Thumbs.db").write_bytes(b"x")
    before = len(list(test.glob("00*.jpg")))
    gallery = open_data_set(f"market1501:{root}").test().gallery
    assert len(gallery) == before
    assert {sample.pid for sample in gallery} >= {0, 7}
    assert -1 not in {sample.pid for sample in gallery}


@pytest.mark.parametrize(
    ("spec", "words"),
    [("nonsense", "write KIND:FOLDER"), ("other:/x", "write KIND:FOLDER"), ("market1501:/nowhere", "is missing")],
)
def test_a_wrong_data_option_says_what_to_do(spec: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_data_set(spec).train()


def test_an_empty_part_is_told(tmp_path: Path) -> None:
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DataError, match="holds no crop named like"):
        open_data_set(f"market1501:{tmp_path}").train()


def samples(*seen: tuple[int, int, int]) -> list[Sample]:
    """(pid, camera, how many crops)."""
    return [Sample(Path(f"{p:04}_c{c}s1_{i:06}_01.jpg"), p, c) for p, c, count in seen for i in range(count)]


def test_held_out_identities_have_one_query_a_camera() -> None:
    data = samples(*((pid, camera, 3) for pid in range(1, 9) for camera in (1, 2, 4)))
    rest, split = hold_out(data, 3)
    held = {sample.pid for sample in split.query}
    assert len(held) == 3
    assert held.isdisjoint({sample.pid for sample in rest})
    assert Counter((sample.pid, sample.camera) for sample in split.query) == {
        (p, c): 1 for p in held for c in (1, 2, 4)
    }
    assert sorted(split.query + split.gallery + rest, key=str) == sorted(data, key=str)


def test_holding_out_depends_on_the_seed_alone() -> None:
    data = samples(*((pid, camera, 3) for pid in range(1, 30) for camera in (1, 2)))
    assert hold_out(data, 5) == hold_out(data, 5)
    assert hold_out(list(reversed(data)), 5)[1] == hold_out(data, 5)[1]
    assert hold_out(data, 5, seed=1)[1] != hold_out(data, 5)[1]


def test_persons_of_a_single_camera_are_never_held_out() -> None:
    data = samples((1, 1, 5), (2, 1, 2), (2, 2, 2), (3, 3, 4), (4, 1, 1), (4, 2, 1))
    _, split = hold_out(data, 2)
    assert {sample.pid for sample in split.query} == {2, 4}
    with pytest.raises(DataError, match="2 of them seen by two cameras"):
        hold_out(data, 3)


@pytest.mark.shared
def test_market1501_training_part_has_its_official_counts(shared: Path) -> None:
    train = open_data_set(f"market1501:{shared / 'data' / 'market1501'}").train()
    assert len(train) == 12_936
    assert len({sample.pid for sample in train}) == 751
    assert {sample.camera for sample in train} == {1, 2, 3, 4, 5, 6}
