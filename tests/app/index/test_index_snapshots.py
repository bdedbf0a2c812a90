"""Snapshots: damage is detected, undamaged ones are used, and a crash while saving does no harm."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.index.faiss_index import FaissIndex
from app.index.port import Removal
from app.index.snapshots import SnapshotStore
from tests.app.index.index_factories import MODEL, all_keys, crop, store_in
from tests.app.logged import Logged

OTHER_MODEL = "mgn-other-ffffffffffff"


def index_of(*keys: int, model_id: str = MODEL) -> FaissIndex:
    index = FaissIndex(model_id)
    index.apply([crop(key) for key in keys])
    return index


def newest_keys(store: SnapshotStore, model_id: str = MODEL) -> set[int] | None:
    index = store.newest(model_id)
    return None if index is None else all_keys(index)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_snapshots_there_is_none(tmp_path: Path) -> None:
    assert store_in(tmp_path / "not" / "there").newest(MODEL) is None


def test_the_newest_snapshot_is_used_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    store = store_in(tmp_path / "snapshots", keep=2)
    for last in (1, 2, 3, 4):
        store.save(index_of(*range(1, last + 1)))
    assert newest_keys(store) == {1, 2, 3, 4}
    assert names(tmp_path / "snapshots") == ["00000003", "00000004"]


def test_a_later_snapshot_is_used_even_if_it_holds_fewer_changes(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(index_of(1, 2, 3))
    store.save(index_of(1))
    assert newest_keys(store) == {1}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    bit = random.randrange(8 * len(content))
    print(f"flipping bit {bit} of {path}")
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def truncate(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lengthen, Path.unlink])
@pytest.mark.parametrize("name", ["embeddings.f16", "columns.npz", "snapshot.json", "SHA256SUMS"])
def test_a_damaged_snapshot_is_set_aside_and_the_next_older_one_used(
    tmp_path: Path, logged: Logged, name: str, damage: Callable[[Path], None]
) -> None:
    store = store_in(tmp_path)
    store.save(index_of(1))
    store.save(index_of(1, 2))
    damage(tmp_path / "00000002" / name)
    assert newest_keys(store) == {1}
    assert names(tmp_path) == ["00000001", "00000002.damaged"]
    assert [entry["snapshot"] for entry in logged] == [str(tmp_path / "00000002")]


@pytest.mark.parametrize("name", ["snapshot.json", "SHA256SUMS"])
def test_each_flipped_bit_of_manifest_and_checksums_is_detected(tmp_path: Path, logged: Logged, name: str) -> None:
    store = store_in(tmp_path)
    store.save(index_of(1, 2, 3))
    generation = tmp_path / "00000001"
    sound = (generation / name).read_bytes()
    for bit in range(0, 8 * len(sound), 3):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        (generation / name).write_bytes(content)
        assert store.newest(MODEL) is None, f"bit {bit}"
        (tmp_path / "00000001.damaged").rename(generation)
    (generation / name).write_bytes(sound)
    assert newest_keys(store) == {1, 2, 3}


def test_when_all_are_damaged_there_is_none_and_new_ones_can_be_made(tmp_path: Path, logged: Logged) -> None:
    store = store_in(tmp_path)
    for last in (1, 2):
        store.save(index_of(last))
        truncate(tmp_path / f"0000000{last}" / "embeddings.f16")
    assert newest_keys(store) is None
    assert names(tmp_path) == ["00000001.damaged", "00000002.damaged"]
    store.save(index_of(7))
    assert newest_keys(store) == {7}
    assert "00000003" in names(tmp_path)


def test_only_the_newest_damaged_snapshot_is_kept(tmp_path: Path, logged: Logged) -> None:
    """A damaged snapshot takes as much space as any other; a failing disk must not fill up with them."""
    store = store_in(tmp_path)
    for number in range(1, 9, 2):
        store.save(index_of(number))
        store.save(index_of(number))
        for generation in names(tmp_path)[-2:]:
            truncate(tmp_path / generation / "columns.npz")
        assert newest_keys(store) is None
    assert names(tmp_path) == ["00000006.damaged", "00000007.damaged", "00000008.damaged"]
    store.save(index_of(9))
    assert names(tmp_path) == ["00000008.damaged", "00000009"]
    assert newest_keys(store) == {9}


def test_a_snapshot_of_another_model_is_neither_used_nor_deleted(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep=1)
    store.save(index_of(1))
    store.save(index_of(2, model_id=OTHER_MODEL))
    assert newest_keys(store) == {1}
    assert newest_keys(store, OTHER_MODEL) == {2}
    assert newest_keys(store, "mgn-third-000000000000") is None
    store.save(index_of(3))
    assert newest_keys(store) == {3}
    assert newest_keys(store, OTHER_MODEL) == {2}
    store.drop_all(MODEL)
    assert newest_keys(store) is None
    assert newest_keys(store, OTHER_MODEL) == {2}


def test_a_full_disk_is_an_error_and_leaves_the_older_snapshot(tmp_path: Path) -> None:
    class FullDisk(FaissIndex):
        def save(self, folder: Path):  # type: ignore[no-untyped-def]
            super().save(folder)
            raise OSError("no space left on device")

    store = store_in(tmp_path)
    store.save(index_of(1))
    with pytest.raises(OSError, match="no space"):
        store.save(FullDisk(MODEL))
    assert newest_keys(store) == {1}
    assert names(tmp_path) == ["00000001"]


def test_a_snapshot_reflects_removals(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    index = index_of(1, 2, 3)
    index.apply([Removal(4, 1)])
    state = store.save(index)
    assert (state.size, state.last_sequence) == (2, 4)
    assert newest_keys(store) == {2, 3}


def test_snapshots_that_hold_a_deleted_crop_go_with_the_next_one_whatever_their_model(
    tmp_path: Path, logged: Logged
) -> None:
    store = store_in(tmp_path)
    index = index_of(1, 2)
    store.save(index_of(1, 2, model_id=OTHER_MODEL))
    store.save(index)
    store.save(index)
    truncate(tmp_path / "00000003" / "columns.npz")
    assert newest_keys(store) == {1, 2}
    index.apply([crop(3)])
    store.save(index)
    assert names(tmp_path) == ["00000001", "00000002", "00000003.damaged", "00000004"]
    index.apply([Removal(4, 1)])
    store.save(index)
    assert names(tmp_path) == ["00000005"]
    index.apply([crop(5)])
    store.save(index)
    assert names(tmp_path) == ["00000005", "00000006"]


def test_a_crash_before_older_snapshots_are_deleted_leaves_them_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index = store_in(tmp_path), index_of(1, 2)
    store.save(index)
    index.apply([Removal(3, 1)])
    monkeypatch.setattr(SnapshotStore, "_drop", lambda *_: None)
    store.save(index)
    monkeypatch.undo()
    assert names(tmp_path) == ["00000001", "00000002"]
    assert newest_keys(store_in(tmp_path)) == {2}
    assert names(tmp_path) == ["00000002"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crash_at_any_line_of_saving_leaves_undamaged_snapshots(tmp_path: Path, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.app.index.crash_while_saving", tmp_path, str(seed)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 50
    assert len(names(tmp_path)) == 1  # neither damaged ones nor drafts, nor one that holds a deleted crop
