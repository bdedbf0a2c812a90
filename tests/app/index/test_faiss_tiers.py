"""The index in the process where it is too large to compare all: how crops move, what it finds, what disks do."""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_factories import (
    ANY,
    MODEL,
    all_keys,
    crop,
    damage,
    embedding,
    is_found,
    keys,
    query_for,
    similarities,
    store_in,
)

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, Filter, Removal
from app.index.row_file import RowFile
from app.index.tuning import Tuning

SMALL = Tuning(
    exact_limit=40, code_dims=16, code="SQ8", cells=4, probes=4, candidates=500, narrow_limit=0, fresh_limit=10
)


def index_in(folder: Path, tuning: Tuning = SMALL) -> FaissIndex:
    return FaissIndex(MODEL, folder / "working", tuning)


def coarse_index(folder: Path, count: int = 60, tuning: Tuning = SMALL) -> FaissIndex:
    """An index of crops 1 to `count`, all of them in the coarse tier."""
    index = index_in(folder, tuning)
    index.load([crop(key) for key in range(1, count + 1)], count)
    assert not index.upkeep()
    assert index.coarse_size == count
    return index


def persons(count: int, crops: int, seed: int = 0) -> list[Addition]:
    """Crops of persons, each of whose crops lie close to each other; crop by crop of all persons.

    As in real embeddings, a few hundred directions make up most of what differs.
    """
    rng = np.random.default_rng(seed)
    sizes = (1 + np.arange(2048)) ** -0.7
    centres = rng.standard_normal((count, 2048)) * sizes
    vectors = centres[None] + 0.7 * rng.standard_normal((crops, count, 2048)) * sizes
    vectors = vectors.reshape(-1, 2048)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        crop(key, vector=vector.astype(np.float16), camera=f"camera {key % 50}", at=key)
        for key, vector in enumerate(vectors, start=1)
    ]


def row_files(folder: Path) -> list[Path]:
    return sorted((folder / "working").glob("*.rows"))


def test_a_gallery_that_grows_is_found_in_both_tiers(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    for key in range(1, 41):
        index.apply([crop(key)])
        index.upkeep()
    assert index.coarse_size == 0
    for key in range(41, 70):
        index.apply([crop(key)])
        assert is_found(index, key)
        index.upkeep()
        assert all_keys(index) == set(range(1, key + 1))
    assert index.coarse_size == 61  # moved at 41, and then ten at a time
    assert index.size == 69


def test_a_gallery_that_shrinks_is_compared_whole_again(tmp_path: Path) -> None:
    index = coarse_index(tmp_path)
    index.apply([Removal(100 + key, key) for key in range(1, 42)])
    index.upkeep()
    assert (index.coarse_size, index.size) == (0, 19)
    assert all_keys(index) == set(range(42, 61))
    assert row_files(tmp_path) == []
    columns = index.search(query_for(50), Filter(camera_ids=frozenset({"gate"})), 100)
    assert columns.compared == 19


def test_a_gallery_that_outgrows_its_cells_is_laid_out_anew(tmp_path: Path) -> None:
    tuning = replace(SMALL, cells=None, exact_limit=100, probes=None, candidates=None)
    index = coarse_index(tmp_path, 200, tuning)
    first = row_files(tmp_path)
    assert index._coarse is not None
    assert index._coarse.cells == 64
    more = [crop(key) for key in range(201, 1001)]
    index.apply(more)
    index.apply([Removal(1001, 7), Removal(1002, 500)])
    index.upkeep()  # moves the new ones
    index.upkeep()  # lays them out
    assert index._coarse.cells == 128
    assert index.coarse_size == 998
    assert len(row_files(tmp_path)) == 1
    assert row_files(tmp_path) != first
    assert all_keys(index) == set(range(1, 1001)) - {7, 500}


def test_rows_of_removed_crops_are_wiped_and_used_again(tmp_path: Path) -> None:
    index = coarse_index(tmp_path)
    (file,) = row_files(tmp_path)
    gone = embedding(9).tobytes()
    assert gone in file.read_bytes()
    index.apply([Removal(100, 9), Removal(101, 33)])
    assert not {9, 33} & all_keys(index)
    index.upkeep()
    assert gone not in file.read_bytes()
    index.apply([crop(key, sequence=100 + key) for key in range(61, 71)])
    index.upkeep()
    assert index.coarse_size == 68
    assert len(index._coarse.columns) == 68  # type: ignore[union-attr]
    assert all_keys(index) == set(range(1, 71)) - {9, 33}


def test_searches_changes_and_upkeep_go_on_together(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print("seed:", seed)
    index = index_in(tmp_path)
    staying = {key: crop(key, camera="staying") for key in range(1, 200)}
    index.load(list(staying.values()), 0)
    truth = similarities(query_for(1), list(staying.values()))
    expected = dict(zip(staying, truth.tolist(), strict=True))
    done = threading.Event()
    rounds = [0]

    def search_until_done() -> None:
        which = Filter(camera_ids=frozenset({"staying"}))
        while not done.is_set():
            found = index.search(query_for(1), which, 1000)
            assert {hit.key for hit in found.hits} == staying.keys()
            assert found.compared == len(staying)
            for hit in found.hits[:5]:
                assert hit.similarity == pytest.approx(expected[hit.key], abs=1e-5)
            everything = index.search(query_for(1), ANY, 1000)
            assert everything.compared == everything.gallery_size
            assert len({hit.key for hit in everything.hits}) == len(everything.hits)

    def keep_up_until_done() -> None:
        while not done.is_set():
            assert not index.upkeep()
            rounds[0] += 1

    def change() -> None:
        rng = random.Random(seed)
        there: set[int] = set()
        sequence, end = 0, time.monotonic() + 60
        while rounds[0] < 20 and time.monotonic() < end:
            changes: list[Addition | Removal] = []
            for key in rng.sample(range(1000, 1400), rng.randrange(1, 60)):
                sequence += 1
                changes.append(Removal(sequence, key) if key in there else crop(key, sequence))
                there ^= {key}
            index.apply(changes)

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(search_until_done) for _ in range(2)] + [threads.submit(keep_up_until_done)]
        try:
            change()
        finally:
            done.set()
        for one in running:
            one.result()
    assert index.coarse_size > 0
    assert rounds[0] >= 20


def test_crops_that_move_to_the_exact_tier_during_a_search_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = coarse_index(tmp_path)
    index.apply([Removal(100 + key, key) for key in range(1, 46)])
    coarse = index._coarse
    assert coarse is not None
    compare = coarse.compare

    def compare_slowly(*arguments: Any) -> Any:
        index.apply([Removal(200, 46)])
        index.upkeep()
        assert index.coarse_size == 0
        return compare(*arguments)

    monkeypatch.setattr(coarse, "compare", compare_slowly)
    assert all_keys(index) == set(range(47, 61))


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


def restored_with_damage(folder: Path, *rows: int) -> FaissIndex:
    """The index of crops 1 to 60 out of a snapshot, some of whose rows were damaged."""
    store = store_in(folder, tuning=SMALL)
    store.save(coarse_index(folder))
    for row in rows:
        damage(folder / "00000001" / "embeddings.rows", row)
    index = store.newest(MODEL)
    assert isinstance(index, FaissIndex)
    return index


def test_a_crop_whose_row_was_damaged_is_named_until_it_is_loaded_again(tmp_path: Path) -> None:
    index = restored_with_damage(tmp_path, 20)
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


def test_a_snapshot_whose_embeddings_are_cut_off_or_gone_is_not_used(tmp_path: Path, logged: Any) -> None:
    store = store_in(tmp_path, keep=3, tuning=SMALL)
    first = coarse_index(tmp_path)
    store.save(first)
    cut = coarse_index(tmp_path)
    store.save(cut)
    with (tmp_path / "00000002" / "embeddings.rows").open("rb+") as file:
        file.truncate(59 * 4096)
    store.save(first)
    (tmp_path / "00000003" / "embeddings.rows").unlink()
    restored = store.newest(MODEL)
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


def test_closing_ends_upkeep_and_takes_the_files_away(tmp_path: Path) -> None:
    index = index_in(tmp_path, Tuning(exact_limit=100))
    index.load(persons(40, 100), 0)
    ended = threading.Event()

    def keep_up() -> None:
        index.upkeep()
        ended.set()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(keep_up)
        while not row_files(tmp_path):
            time.sleep(0.001)
        index.close()
        assert ended.wait(20)
    assert row_files(tmp_path) == []
    assert index.coarse_size == 0
    assert len(index.search(query_for(1), ANY, 5).hits) == 5


@pytest.fixture(scope="module")
def gallery() -> list[Addition]:
    return persons(300, 20)


@pytest.fixture(scope="module")
def large(gallery: list[Addition], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaissIndex]:
    """An index that has the settings of a large gallery, but for its size."""
    index = FaissIndex(MODEL, tmp_path_factory.mktemp("working"), Tuning(exact_limit=1000, narrow_limit=100))
    index.load(gallery, 0)
    index.upkeep()
    assert index.coarse_size == len(gallery)
    yield index
    index.close()


def test_a_search_compares_a_small_part_of_the_gallery(large: FaissIndex, gallery: list[Addition]) -> None:
    assert large._coarse is not None
    assert large._coarse.probing.candidates(10, 1) < len(gallery) // 10


@pytest.mark.parametrize("top_k", [1, 10, 100, 1000])
def test_almost_all_true_matches_are_found(large: FaissIndex, gallery: list[Addition], top_k: int) -> None:
    assert _recall(large, gallery, ANY, gallery, top_k, 100) > 0.98


@pytest.mark.parametrize("cameras", [1, 5, 25])
def test_almost_all_true_matches_that_pass_a_filter_are_found(
    large: FaissIndex, gallery: list[Addition], cameras: int
) -> None:
    named = frozenset(f"camera {number}" for number in range(cameras))
    passing = [one for one in gallery if one.columns.camera_id in named]
    assert _recall(large, gallery, Filter(camera_ids=named), passing, 10, 100) > 0.98


def test_almost_all_true_matches_to_weighted_parts_are_found(large: FaissIndex, gallery: list[Addition]) -> None:
    weights = np.repeat(np.array([1, 0, 2, 1, 0.5, 1, 1, 3], np.float32), 256)
    assert _recall(large, gallery, ANY, gallery, 10, 100, weights) > 0.97


def _recall(
    index: FaissIndex,
    gallery: Sequence[Addition],
    which: Filter,
    passing: Sequence[Addition],
    top_k: int,
    queries: int,
    weights: np.ndarray | float = 1.0,
) -> float:
    """The share of the true `top_k` that is found; every hit's similarity must be right."""
    seed = random.randrange(1_000_000)
    print("seed:", seed)
    found = 0
    for one in random.Random(seed).sample(gallery, queries):
        query = (one.embedding * weights).astype(np.float32)
        truth = similarities(query, passing)
        best = {passing[place].key for place in np.argsort(-truth)[:top_k].tolist()}
        hits = index.search(query, which, top_k).hits
        assert len(hits) == min(top_k, len(passing))
        by_key = {crop.key: value for crop, value in zip(passing, truth.tolist(), strict=True)}
        for hit in hits:
            assert hit.similarity == pytest.approx(by_key[hit.key], abs=1e-4)
        found += len(best & {hit.key for hit in hits})
    return found / (queries * min(top_k, len(passing)))


def test_a_filter_never_costs_matches_while_more_exist(tmp_path: Path) -> None:
    """Even where a search looks into one cell and compares one crop."""
    index = coarse_index(tmp_path, 200, replace(SMALL, cells=16, probes=1, candidates=1))
    for which, passing in ((ANY, 200), (Filter(captured_from=0), 200)):
        for top_k in (1, 10, 150, 500):
            assert len(keys(index.search(query_for(3), which, top_k))) == min(top_k, passing)
