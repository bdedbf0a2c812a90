"""The index in the process and its files: snapshots that share them, damage, and full disks."""

import os
from pathlib import Path
from typing import Any

import pytest
from index_factories import ANY, MODEL, all_keys, crop, damage, is_found, query_for, store_in
from tier_factories import SMALL, coarse_index, index_in, row_files

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, Removal
from app.index.row_file import RowFile


def test_a_restored_index_takes_in_what_happened_to_its_file_since(tmp_path: Path) -> None:
    store = store_in(tmp_path, tuning=SMALL)
    index = coarse_index(tmp_path)
    index.apply([crop(61)])
    store.save(index)
    later: list[Addition | Removal] = [
        Removal(100, 5),
        Removal(101, 6),
        *(crop(key, sequence=100 + key) for key in range(62, 75)),
    ]
    index.apply(later[:2])
    index.upkeep()  # frees the rows of 5 and 6, which the snapshot has in use
    index.apply(later[2:])
    index.upkeep()  # puts others there
    expected = {key: index.search(query_for(key), ANY, 80) for key in (1, 61, 62, 74)}
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 61
    restored.apply(later)
    assert not restored.upkeep()
    assert all_keys(restored) == set(range(1, 75)) - {5, 6}
    assert {key: restored.search(query_for(key), ANY, 80) for key in expected} == expected


ROW_BYTES = {"embeddings.rows": 4096, "fine.rows": SMALL.code_dims}
"""What a snapshot shares with the index, and how long its rows are."""


def restored_with_damage(folder: Path, *rows: int, name: str = "embeddings.rows") -> FaissIndex:
    """The index of crops 1 to 60 out of a snapshot, some of whose rows were damaged."""
    store = store_in(folder, tuning=SMALL)
    store.save(coarse_index(folder))
    for row in rows:
        damage(folder / "00000001" / name, row, ROW_BYTES[name])
    index = store.newest(MODEL)
    assert isinstance(index, FaissIndex)
    return index


@pytest.mark.parametrize("name", ROW_BYTES)
def test_a_crop_whose_row_was_damaged_is_named_until_it_is_loaded_again(tmp_path: Path, name: str) -> None:
    index = restored_with_damage(tmp_path, 20, name=name)
    assert index.upkeep() == [21]
    assert index.upkeep() == [21]
    index.load([crop(21, sequence=0)], 60)
    assert all_keys(index) == set(range(1, 61))
    assert is_found(index, 21)
    assert not index.upkeep()


def test_a_damaged_crop_that_is_removed_is_named_no_more(tmp_path: Path) -> None:
    index = restored_with_damage(tmp_path, 20, 30)
    assert index.upkeep() == [21, 31]
    index.apply([Removal(61, 21)])
    assert index.upkeep() == [31]
    index.apply([Removal(62, 31)])
    assert not index.upkeep()


def test_a_damaged_crop_is_in_the_next_snapshot_and_named_again_by_whoever_restores_it(tmp_path: Path) -> None:
    """Otherwise a service that stops between both would never find the crop again."""
    index = restored_with_damage(tmp_path, 20)
    assert index.upkeep() == [21]
    index.apply([crop(key) for key in range(61, 80)])  # so many that upkeep would move them
    assert index.upkeep() == [21]
    store = store_in(tmp_path, tuning=SMALL)
    store.save(index)
    again = store.newest(MODEL)
    assert again is not None
    assert again.size == 79
    assert again.upkeep() == [21]


@pytest.mark.parametrize("name", ["codes.faiss", "coarse.npz", "coarse_state.npz", "probing.json", "projection.npz"])
def test_a_snapshot_with_a_damaged_file_is_not_used(tmp_path: Path, logged: Any, name: str) -> None:
    store = store_in(tmp_path, tuning=SMALL)
    index = coarse_index(tmp_path)
    store.save(index)
    store.save(index)
    with (tmp_path / "00000002" / name).open("rb+") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 1)
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 60
    assert (tmp_path / "00000002.damaged").exists()


@pytest.mark.parametrize("name", ROW_BYTES)
def test_a_snapshot_whose_rows_are_cut_off_or_gone_is_not_used(tmp_path: Path, logged: Any, name: str) -> None:
    store = store_in(tmp_path, keep=3, tuning=SMALL)
    first = coarse_index(tmp_path)
    store.save(first)
    cut = coarse_index(tmp_path)
    store.save(cut)
    with (tmp_path / "00000002" / name).open("rb+") as file:
        file.truncate(59 * ROW_BYTES[name])
    store.save(first)
    (tmp_path / "00000003" / name).unlink()
    before = row_files(tmp_path)
    restored = store.newest(MODEL)
    assert len(row_files(tmp_path)) == len(before) + 2, "what could not be restored leaves nothing behind"
    assert restored is not None
    assert all_keys(restored) == set(range(1, 61))
    assert sorted(path.name for path in tmp_path.glob("*.damaged")) == ["00000002.damaged", "00000003.damaged"]


def test_a_sound_snapshot_that_there_is_no_room_to_restore_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    store = store_in(tmp_path, tuning=SMALL)
    store.save(coarse_index(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", full)
        with pytest.raises(OSError, match="No space"):
            store.newest(MODEL)
    restored = store.newest(MODEL)
    assert restored is not None
    assert restored.size == 60


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = coarse_index(tmp_path)
    fresh = index_in(tmp_path / "fresh")
    fresh.load([crop(key) for key in range(1, 50)], 49)
    index.apply([crop(key) for key in range(61, 80)])
    index.apply([Removal(100, 3)])

    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "_write_all", full)
        for one in (index, fresh):
            with pytest.raises(OSError, match="No space"):
                one.upkeep()
    assert all_keys(index) == set(range(1, 80)) - {3}
    assert all_keys(fresh) == set(range(1, 50))
    assert row_files(tmp_path / "fresh") == []
    index.upkeep()
    fresh.upkeep()
    assert (index.coarse_size, fresh.coarse_size) == (78, 49)
    assert all_keys(index) == set(range(1, 80)) - {3}
