"""The contract of every adapter in memory for saving and restoring."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.index.port import Change, Filter, Removal, SnapshotError
from tests.app.index.index_adapters import Adapter
from tests.app.index.index_factories import (
    ANY,
    GALLERY,
    MODEL,
    all_keys,
    ask,
    assert_equal,
    crop,
    having,
    is_found,
    query_for,
)


def test_a_restored_index_is_the_index_that_was_saved(adapter: Adapter, tmp_path: Path) -> None:
    index = adapter.new()
    index.apply([*GALLERY, crop(7, camera="tür-ø", track="\N{SNOWMAN}", person=""), Removal(8, 2)])
    restored = adapter.restore(tmp_path, index.save(tmp_path))
    assert (restored.model_id, restored.size, restored.last_sequence) == (MODEL, 6, 8)
    for crop_filter in (
        ANY,
        Filter(person_id="anna"),
        Filter(person_id=""),
        Filter(track_id="\N{SNOWMAN}"),
        Filter(exclude_camera_ids=frozenset({"tür-ø"}), captured_from=300),
        having(("größe", '"☃"')),
        having(("colour", '"red"')),
    ):
        assert_equal(ask(restored, query_for(4), crop_filter, 10), ask(index, query_for(4), crop_filter, 10))


def test_a_restored_index_applies_the_changes_after_the_snapshot(adapter: Adapter, tmp_path: Path) -> None:
    index = adapter.new()
    index.apply(GALLERY)
    restored = adapter.restore(tmp_path, index.save(tmp_path))
    later: list[Change] = [
        crop(5),
        crop(7, camera="hall", attributes='{"colour":"red","lane":7}'),
        Removal(8, 1),
        Removal(9, 6),
        crop(10, camera="yard"),
    ]
    for updated in (index, restored):
        updated.apply(later)
    assert restored.last_sequence == 10
    assert all_keys(restored) == {2, 3, 4, 5, 7, 10}
    assert all_keys(restored, having(("colour", '"red"'))) == {2, 4, 7}
    assert_equal(ask(restored, query_for(7), ANY, 10), ask(index, query_for(7), ANY, 10))


def test_an_empty_index_can_be_saved(adapter: Adapter, tmp_path: Path) -> None:
    index = adapter.new()
    index.apply([crop(1), Removal(2, 1)])
    restored = adapter.restore(tmp_path, index.save(tmp_path))
    assert (restored.size, restored.last_sequence) == (0, 2)
    restored.apply([crop(3)])
    assert is_found(restored, 3)


def test_files_that_do_not_match_the_state_are_not_restored(adapter: Adapter, tmp_path: Path) -> None:
    index = adapter.new()
    index.apply(GALLERY)
    state = index.save(tmp_path)
    with pytest.raises(SnapshotError):
        adapter.restore(tmp_path, replace(state, size=5))
