"""The index in the process with all crops in its write buffer: threads, memory, saving."""

import pickle
import random
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.index.columns import Columns
from app.index.faiss_index import FaissIndex
from app.index.port import Addition, CropColumns, Filter, IndexResult, Removal
from app.index.write_buffer import WriteBuffer
from tests.app.index.index_factories import (
    ANY,
    MODEL,
    all_keys,
    ask,
    assert_equal,
    crop,
    embedding,
    is_found,
    query_for,
)

Vector = NDArray[np.float32]


def test_searches_by_several_threads_are_right_while_changes_are_applied() -> None:
    staying = {key: crop(key, sequence=0, camera="staying") for key in range(100)}
    passing = {key: crop(key, sequence=0, camera="passing") for key in range(100, 400)}
    embeddings = {key: addition.embedding.astype(np.float32) for key, addition in (staying | passing).items()}
    index = FaissIndex(MODEL)
    index.load(list(staying.values()), 0)

    def search_until_done(seed: int) -> None:
        rng = random.Random(seed)
        while not done.is_set():
            key = rng.randrange(400)
            query = embeddings[key]
            crop_filter = rng.choice([ANY, Filter(camera_ids=frozenset({"staying"}))])
            _assert_consistent(ask(index, query, crop_filter, 500), query, embeddings, staying.keys(), crop_filter)

    done = threading.Event()
    with ThreadPoolExecutor(3) as threads:
        searches = [threads.submit(search_until_done, seed) for seed in range(3)]
        try:
            _apply_random_changes(index, passing, seconds=2.0)
        finally:
            done.set()
        for search in searches:
            search.result()


def _apply_random_changes(index: FaissIndex, passing: dict[int, Addition], seconds: float) -> None:
    rng = random.Random(0)
    there: set[int] = set()
    sequence = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        changes: list[Addition | Removal] = []
        for key in rng.sample(sorted(passing), rng.randrange(1, 40)):
            sequence += 1
            if key in there:
                changes.append(Removal(sequence, key))
            else:
                addition = passing[key]
                changes.append(Addition(sequence, key, addition.embedding, addition.columns))
            there ^= {key}
        index.apply(changes)


def _assert_consistent(
    found: IndexResult, query: Vector, embeddings: dict[int, Vector], staying: Collection[int], crop_filter: Filter
) -> None:
    """All crops that stay are found, none twice, each with the similarity of its own embedding."""
    keys = found.keys.tolist()
    assert len(set(keys)) == len(keys) == found.compared
    assert set(staying) <= set(keys)
    if crop_filter is ANY:
        assert found.compared == found.gallery_size
    else:
        assert found.compared == len(staying)
    for key, similarity in zip(found.keys[:20].tolist(), found.similarities.tolist(), strict=False):
        assert similarity == pytest.approx(float(embeddings[key] @ query), abs=1e-5)


def test_changes_and_searches_run_while_the_index_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = FaissIndex(MODEL)
    first = crop(1)
    index.apply([first, *(crop(key, vector=embedding(key % 50)) for key in range(2, 601))])
    changes: list[Addition | Removal] = [
        *(Removal(2000 + key, key) for key in range(1, 601, 3)),
        crop(5000, camera="late"),
        crop(5001, vector=first.embedding),
        Removal(5002, 5001),
        crop(1, sequence=5003, vector=embedding(5003), camera="again"),
    ]
    save = WriteBuffer.save

    def change_first(folder: Path, *rows: Any) -> None:
        with ThreadPoolExecutor(1) as threads:  # neither waits for the save
            threads.submit(index.apply, changes).result(10)
            assert threads.submit(is_found, index, 5000).result(10)
        save(folder, *rows)

    monkeypatch.setattr(WriteBuffer, "save", staticmethod(change_first))
    state = index.save(tmp_path)
    assert (state.last_sequence, state.size) == (600, 600)
    restored = FaissIndex.restore(tmp_path, state)
    assert all_keys(restored) == set(range(1, 601))
    restored.apply(changes)
    assert restored.size == index.size
    for crop_filter in (ANY, Filter(camera_ids=frozenset({"late"})), Filter(camera_ids=frozenset({"again"}))):
        for seed in (3, 30, 5000, 5003):
            assert_equal(
                ask(restored, query_for(seed), crop_filter, 700), ask(index, query_for(seed), crop_filter, 700)
            )


def test_a_removed_embedding_leaves_the_memory() -> None:
    buffer = WriteBuffer()
    for key in range(1, 6):
        buffer.add(key, embedding(key), crop(key).columns)
    for key in (2, 5, 1):
        buffer.remove(key)
    columns, embeddings = buffer.last(10)
    assert sorted(columns.keys.tolist()) == [3, 4]
    assert all((embeddings[row] == embedding(key)).all() for row, key in enumerate(columns.keys.tolist()))
    assert np.count_nonzero(buffer.reserved.any(axis=1)) == 2


def test_texts_of_removed_crops_are_dropped() -> None:
    columns = Columns()
    for key in range(5000):
        columns.append(key, CropColumns("gate", key, f"track {key}", None, f'{{"lane":{key % 7},"number":{key}}}'))
    full = len(pickle.dumps(columns))
    while len(columns) > 100:
        columns.remove(0)
    assert len(pickle.dumps(columns)) < full / 3
    for key in columns.keys.tolist():
        rows = columns.matching_rows(Filter(track_id=f"track {key}", camera_ids=frozenset({"gate"})))
        assert rows is not None
        assert columns.keys[rows].tolist() == [key]
        numbered = columns.matching_rows(Filter(attributes=frozenset({("number", f"{key}"), ("lane", f"{key % 7}")})))
        assert numbered is not None
        assert columns.keys[numbered].tolist() == [key]
    rows = columns.matching_rows(Filter(track_id="track 0"))
    assert rows is not None
    assert rows.tolist() == []


def test_saved_columns_hold_no_field_of_a_removed_crop(tmp_path: Path) -> None:
    contiguous, in_places = Columns(), Columns()
    for key, name in enumerate(("anna", "bert", "carl")):
        contiguous.append(key, CropColumns("gate", 7_700 + key, f"track {name}", name, f'{{"name":"{name}"}}'))
    in_places.copy_rows(np.arange(3), contiguous, np.arange(3))
    contiguous.remove(1)
    in_places.free(1)
    for columns in (contiguous, in_places):
        columns.save(tmp_path / "columns.npz")
        with np.load(tmp_path / "columns.npz") as file:
            content = {name: file[name].tobytes() for name in file}
        assert b"anna" in content["person_id_texts"]
        assert not any(b"bert" in texts for texts in content.values())
        assert np.int64(7_701).tobytes() not in content["captured_at"]
        restored = Columns.load(tmp_path / "columns.npz")
        for name, found in (("anna", [0]), ("bert", []), ("carl", [2])):
            for crop_filter in (Filter(person_id=name), Filter(attributes=frozenset({("name", f'"{name}"')}))):
                rows = restored.matching_rows(crop_filter)
                assert rows is not None
                assert [key for key in restored.keys[rows].tolist() if key >= 0] == found


def test_columns_and_their_copy_change_independently() -> None:
    columns = Columns()
    columns.append(1, CropColumns("gate", 1, attributes='{"lane":1}'))
    copy = columns.take(slice(None))
    copy.append(2, CropColumns("gate", 2, attributes='{"lane":2}'))
    columns.append(3, CropColumns("gate", 3, attributes='{"bag":true,"lane":1}'))

    def keys_with(columns: Columns, lane: int) -> list[int]:
        rows = columns.matching_rows(Filter(attributes=frozenset({("lane", f"{lane}")})))
        assert rows is not None
        return columns.keys[rows].tolist()

    assert [keys_with(copy, lane) for lane in (1, 2)] == [[1], [2]]
    assert [keys_with(columns, lane) for lane in (1, 2)] == [[1, 3], []]


def test_equal_embeddings_have_equal_similarities_in_all_rows() -> None:

    index = FaissIndex(MODEL)
    index.apply([crop(key, vector=embedding(5)) for key in range(1, 200)])
    for crop_filter in (ANY, Filter(captured_from=0)):
        found = ask(index, query_for(6), crop_filter, 199)
        assert len(set(found.similarities.tolist())) == 1
        assert found.keys.tolist() == list(range(1, 200))


def test_calls_for_several_queries_are_made_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads that use OpenMP would have more threads than there are cores."""
    index = FaissIndex(MODEL)
    index.apply([crop(key) for key in range(1, 20)])
    calls: list[tuple[int, int]] = []
    search = WriteBuffer.search

    def noting_thread(self: WriteBuffer, queries: Vector, *arguments: Any) -> Any:
        calls.append((len(queries), threading.get_ident()))
        return search(self, queries, *arguments)

    monkeypatch.setattr(WriteBuffer, "search", noting_thread)
    queries = np.stack([query_for(1), query_for(2)])
    with ThreadPoolExecutor(4) as threads:
        both = list(threads.map(lambda _: index.search(queries, ANY, 3), range(40)))
    alone = [ask(index, query, ANY, 3) for query in queries]
    for results in both:
        for found, expected in zip(results, alone, strict=True):
            assert_equal(found, expected)
    assert len({thread for count, thread in calls if count == 2}) == 1
    assert {thread for count, thread in calls if count == 1} == {threading.get_ident()}
