"""The index in the process with a segment: how crops move between the write buffer and the segment."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from index_factories import ANY, all_keys, crop, embedding, is_found, query_for, similarities
from segment_factories import SMALL, index_in, index_with_segment, persons, row_files

from app.index.port import Addition, Filter, Removal
from app.index.tuning import Tuning


def test_a_growing_gallery_is_found_in_buffer_and_segment(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    for key in range(1, 41):
        index.apply([crop(key)])
        index.maintain()
    assert index.segment_size == 0
    for key in range(41, 70):
        index.apply([crop(key)])
        assert is_found(index, key)
        index.maintain()
        assert all_keys(index) == set(range(1, key + 1))
    assert index.segment_size == 61  # moved at 41, and then ten at a time
    assert index.size == 69


def test_a_gallery_that_shrinks_returns_to_the_buffer(tmp_path: Path) -> None:
    index = index_with_segment(tmp_path)
    index.apply([Removal(100 + key, key) for key in range(1, 42)])
    index.maintain()
    assert (index.segment_size, index.size) == (0, 19)
    assert all_keys(index) == set(range(42, 61))
    assert row_files(tmp_path) == []
    columns = index.search(query_for(50), Filter(camera_ids=frozenset({"gate"})), 100)
    assert columns.compared == 19


def test_a_segment_that_outgrows_its_lists_is_rebuilt(tmp_path: Path) -> None:
    tuning = replace(SMALL, nlist=None, exact_limit=100, nprobe=None, candidates=None, refined=None)
    index = index_with_segment(tmp_path, 200, tuning)
    first = row_files(tmp_path)
    assert index._segment is not None
    assert index._segment.nlist == 64
    more = [crop(key) for key in range(201, 1001)]
    index.apply(more)
    index.apply([Removal(1001, 7), Removal(1002, 500)])
    index.maintain()  # flushes the buffer
    index.maintain()  # rebuilds the segment
    assert index._segment.nlist == 128
    assert index.segment_size == 998
    assert len(row_files(tmp_path)) == 2
    assert not set(row_files(tmp_path)) & set(first)
    assert all_keys(index) == set(range(1, 1001)) - {7, 500}


def test_equal_embeddings_are_equally_similar_in_buffer_and_segment(tmp_path: Path) -> None:
    index = index_with_segment(tmp_path)
    index.apply([crop(100 + key, sequence=100 + key, vector=embedding(key)) for key in range(1, 9)])
    assert (index.segment_size, index.size) == (60, 68)
    similar = {hit.key: hit.similarity for hit in index.search(query_for(3), ANY, 68).hits}
    assert all(similar[key] == similar[100 + key] for key in range(1, 9))


def test_rows_of_removed_crops_are_zeroed_and_reused(tmp_path: Path) -> None:
    index = index_with_segment(tmp_path)
    sq8, embeddings = row_files(tmp_path)
    deleted = embedding(9).tobytes()
    assert deleted in embeddings.read_bytes()
    code = slice(8 * SMALL.pca_dims, 9 * SMALL.pca_dims)
    assert any(sq8.read_bytes()[code])
    index.apply([Removal(100, 9), Removal(101, 33)])
    assert not {9, 33} & all_keys(index)
    index.maintain()
    assert deleted not in embeddings.read_bytes()
    assert not any(sq8.read_bytes()[code])
    index.apply([crop(key, sequence=100 + key) for key in range(61, 71)])
    index.maintain()
    assert index.segment_size == 68
    assert index._segment is not None
    assert len(index._segment.columns) == 68
    assert all_keys(index) == set(range(1, 71)) - {9, 33}


def test_searches_changes_and_maintenance_run_concurrently(tmp_path: Path, seed: int) -> None:
    index = index_in(tmp_path)
    staying = {key: crop(key, camera="staying") for key in range(1, 200)}
    index.load(list(staying.values()), 0)
    truth = similarities(query_for(1), list(staying.values()))
    expected = dict(zip(staying, truth.tolist(), strict=True))
    done = threading.Event()
    rounds = [0]

    def search_until_done() -> None:
        crop_filter = Filter(camera_ids=frozenset({"staying"}))
        while not done.is_set():
            found = index.search(query_for(1), crop_filter, 1000)
            assert {hit.key for hit in found.hits} == staying.keys()
            assert found.compared == len(staying)
            for hit in found.hits[:5]:
                assert hit.similarity == pytest.approx(expected[hit.key], abs=1e-5)
            everything = index.search(query_for(1), ANY, 1000)
            assert everything.compared == everything.gallery_size
            assert len({hit.key for hit in everything.hits}) == len(everything.hits)

    def maintain_until_done() -> None:
        while not done.is_set():
            assert not index.maintain()
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
        running = [threads.submit(search_until_done) for _ in range(2)] + [threads.submit(maintain_until_done)]
        try:
            change()
        finally:
            done.set()
        for thread in running:
            thread.result()
    assert index.segment_size > 0
    assert rounds[0] >= 20


def test_a_crop_that_is_removed_during_a_flush_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_with_segment(tmp_path)
    segment = index._segment
    assert segment is not None
    stage = segment.stage

    def stage_and_remove(*arguments: Any) -> Any:
        staged = stage(*arguments)
        index.apply([Removal(200, 5), Removal(201, 70)])
        return staged

    monkeypatch.setattr(segment, "stage", stage_and_remove)
    index.apply([crop(key, sequence=100 + key) for key in range(61, 75)])
    index.maintain()
    assert all_keys(index) == set(range(1, 75)) - {5, 70}
    assert index.size == index.segment_size == 72


def test_crops_that_move_to_the_buffer_during_a_search_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_with_segment(tmp_path)
    index.apply([Removal(100 + key, key) for key in range(1, 46)])
    segment = index._segment
    assert segment is not None
    rank = segment.rank

    def rank_slowly(*arguments: Any) -> Any:
        index.apply([Removal(200, 46)])
        index.maintain()
        assert index.segment_size == 0
        return rank(*arguments)

    monkeypatch.setattr(segment, "rank", rank_slowly)
    assert all_keys(index) == set(range(47, 61))


def test_closing_cancels_maintenance_and_deletes_the_files(tmp_path: Path) -> None:
    index = index_in(tmp_path, Tuning(exact_limit=100))
    index.load(persons(40, 100), 0)
    ended = threading.Event()

    def maintain_once() -> None:
        index.maintain()
        ended.set()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(maintain_once)
        while not row_files(tmp_path):
            time.sleep(0.001)
        index.close()
        assert ended.wait(20)
    assert row_files(tmp_path) == []
    assert index.segment_size == 0
    assert len(index.search(query_for(1), ANY, 5).hits) == 5


def test_a_segment_that_has_grown_by_half_is_autotuned_again(tmp_path: Path) -> None:
    index = index_with_segment(tmp_path, 60)
    segment = index._segment
    assert segment is not None
    assert segment.search_depth.crops == 60
    index.apply([Removal(100, 1), Removal(101, 2), *(crop(key, sequence=100 + key) for key in range(61, 100))])
    index.maintain()  # flushes the buffer

    assert segment.search_depth.crops == 60
    index.maintain()
    assert index._segment is segment
    assert segment.search_depth.crops == 97
    assert all(is_found(index, key) for key in range(3, 100))
    index.close()
