"""The files of the index in the process: snapshots that share them, damage, and full disks."""

import os
from pathlib import Path
from typing import Any

import pytest
from index_factories import ANY, MODEL, all_keys, crop, damage, is_found, query_for, store_in
from segment_factories import SMALL, index_in, index_with_segment, row_files

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, Removal
from app.index.row_file import RowFile


def test_a_restored_index_is_right_although_its_shared_file_has_changed_since(tmp_path: Path) -> None:
    store = store_in(tmp_path, tuning=SMALL)
    index = index_with_segment(tmp_path)
    index.apply([crop(61)])
    store.save(index)
    later: list[Addition | Removal] = [
        Removal(100, 5),
        Removal(101, 6),
        *(crop(key, sequence=100 + key) for key in range(62, 75)),
    ]
    index.apply(later[:2])
    index.maintain()  # frees the rows of 5 and 6, which the snapshot still refers to
    index.apply(later[2:])
    index.maintain()  # writes other crops to these rows
    expected = {key: index.search(query_for(key), ANY, 80) for key in (1, 61, 62, 74)}
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 61
    restored.apply(later)
    assert not restored.maintain()
    assert all_keys(restored) == set(range(1, 75)) - {5, 6}
    assert {key: restored.search(query_for(key), ANY, 80) for key in expected} == expected


ROW_BYTES = {"embeddings.rows": 4096, "fine.rows": SMALL.pca_dims}
"""The files that a snapshot shares with the index, and the length of their rows."""


def restored_with_damage(folder: Path, *rows: int, name: str = "embeddings.rows") -> FaissIndex:
    """An index of crops 1 to 60 restored from a snapshot with damaged rows."""
    store = store_in(folder, tuning=SMALL)
    store.save(index_with_segment(folder))
    for row in rows:
        damage(folder / "00000001" / name, row, ROW_BYTES[name])
    index = store.newest(MODEL)
    assert isinstance(index, FaissIndex)
    return index


@pytest.mark.parametrize("name", ROW_BYTES)
def test_a_crop_whose_row_is_damaged_is_reported_until_it_is_loaded_again(tmp_path: Path, name: str) -> None:
    index = restored_with_damage(tmp_path, 20, name=name)
    assert index.maintain() == [21]
    assert index.maintain() == [21]
    index.load([crop(21, sequence=0)], 60)
    assert all_keys(index) == set(range(1, 61))
    assert is_found(index, 21)
    assert not index.maintain()


def test_a_damaged_crop_that_is_removed_is_no_longer_reported(tmp_path: Path) -> None:
    index = restored_with_damage(tmp_path, 20, 30)
    assert index.maintain() == [21, 31]
    index.apply([Removal(61, 21)])
    assert index.maintain() == [31]
    index.apply([Removal(62, 31)])
    assert not index.maintain()


def test_a_damaged_crop_is_in_the_next_snapshot_and_reported_after_its_restore(tmp_path: Path) -> None:
    """Otherwise the crop would be lost if the service stopped before it was loaded again."""
    index = restored_with_damage(tmp_path, 20)
    assert index.maintain() == [21]
    index.apply([crop(key) for key in range(61, 80)])  # so many that maintenance would move them
    assert index.maintain() == [21]
    store = store_in(tmp_path, tuning=SMALL)
    store.save(index)
    again = store.newest(MODEL)
    assert again is not None
    assert again.size == 79
    assert again.maintain() == [21]


@pytest.mark.parametrize("name", ["codes.faiss", "coarse.npz", "coarse_state.npz", "probing.json", "projection.npz"])
def test_a_snapshot_with_a_damaged_file_is_not_used(tmp_path: Path, logged: Any, name: str) -> None:
    store = store_in(tmp_path, tuning=SMALL)
    index = index_with_segment(tmp_path)
    store.save(index)
    store.save(index)
    with (tmp_path / "00000002" / name).open("rb+") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 1)
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 60
    assert (tmp_path / "00000002.damaged").exists()


@pytest.mark.parametrize("name", ROW_BYTES)
def test_a_snapshot_whose_rows_are_truncated_or_missing_is_not_used(tmp_path: Path, logged: Any, name: str) -> None:
    store = store_in(tmp_path, keep=3, tuning=SMALL)
    first = index_with_segment(tmp_path)
    store.save(first)
    truncated = index_with_segment(tmp_path)
    store.save(truncated)
    with (tmp_path / "00000002" / name).open("rb+") as file:
        file.truncate(59 * ROW_BYTES[name])
    store.save(first)
    (tmp_path / "00000003" / name).unlink()
    before = row_files(tmp_path)
    restored = store.newest(MODEL)
    assert len(row_files(tmp_path)) == len(before) + 2, "a failed restore leaves no files"
    assert restored is not None
    assert all_keys(restored) == set(range(1, 61))
    assert sorted(path.name for path in tmp_path.glob("*.damaged")) == ["00000002.damaged", "00000003.damaged"]


def test_an_undamaged_snapshot_is_not_set_aside_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    store = store_in(tmp_path, tuning=SMALL)
    store.save(index_with_segment(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", full)
        with pytest.raises(OSError, match="No space"):
            store.newest(MODEL)
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 60


def test_maintenance_on_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_with_segment(tmp_path)
    buffer_only = index_in(tmp_path / "buffer only")
    buffer_only.load([crop(key) for key in range(1, 50)], 49)
    index.apply([crop(key) for key in range(61, 80)])
    index.apply([Removal(100, 3)])

    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "_write_all", full)
        for tested in (index, buffer_only):
            with pytest.raises(OSError, match="No space"):
                tested.maintain()
    assert all_keys(index) == set(range(1, 80)) - {3}
    assert all_keys(buffer_only) == set(range(1, 50))
    assert row_files(tmp_path / "buffer only") == []
    index.maintain()
    buffer_only.maintain()
    assert (index.segment_size, buffer_only.segment_size) == (78, 49)
    assert all_keys(index) == set(range(1, 80)) - {3}
