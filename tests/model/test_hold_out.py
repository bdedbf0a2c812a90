"""Held-out identities are split into queries and gallery like the official splits."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from model.datasets import open_data_set
from model.datasets.base import NO_CAMERA, Sample, hold_out
from model.errors import DataError


def samples(*seen: tuple[int, int, int]) -> list[Sample]:
    """Samples of (pid, camera, number of crops)."""
    return [Sample(Path(f"{p:04}_c{c}s1_{i:06}_01.jpg"), p, c) for p, c, count in seen for i in range(count)]


def test_held_out_identities_have_one_query_per_camera() -> None:
    data = samples(*((pid, camera, 3) for pid in range(1, 9) for camera in (1, 2, 4)))
    rest, split = hold_out(data, 3)
    held = {sample.pid for sample in split.query}
    assert len(held) == 3
    assert held.isdisjoint({sample.pid for sample in rest})
    assert Counter((sample.pid, sample.camera) for sample in split.query) == {
        (p, c): 1 for p in held for c in (1, 2, 4)
    }
    assert sorted(split.query + split.gallery + rest, key=str) == sorted(data, key=str)


def test_holding_out_depends_on_the_seed_only() -> None:
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


def test_without_cameras_a_held_out_identity_has_one_query() -> None:
    data = samples(*((pid, NO_CAMERA, 4) for pid in range(1, 6)), (6, NO_CAMERA, 1))
    _, split = hold_out(data, 5)
    assert Counter(sample.pid for sample in split.query) == dict.fromkeys(range(1, 6), 1)
    assert Counter(sample.pid for sample in split.gallery) == dict.fromkeys(range(1, 6), 3)


@pytest.mark.shared
def test_the_split_of_the_bundled_results_does_not_change(shared: Path) -> None:
    rest, split = hold_out(open_data_set(f"market1501:{shared / 'data' / 'market1501'}").train(), 100)
    everything = [(x.path.name, x.pid, x.camera) for x in (*rest, *split.query, *split.gallery)]
    assert hashlib.sha256(repr(everything).encode()).hexdigest()[:16] == "399fd77c622c8319"
