"""The contract of every adapter; filters and snapshots have files of their own."""

import numpy as np
import pytest

from app.index.port import Change, Filter, Removal, VectorIndex
from tests.app.index.index_factories import (
    ANY,
    MODEL,
    all_keys,
    ask,
    crop,
    embedding,
    having,
    is_found,
    keys,
    query_for,
)


def test_a_new_index_is_empty(index: VectorIndex) -> None:
    assert (index.model_id, index.size, index.last_sequence) == (MODEL, 0, 0)
    found = ask(index, query_for(1), ANY, 5)
    assert (keys(found), found.compared, found.gallery_size) == ([], 0, 0)


def test_an_added_crop_is_the_best_candidate(index: VectorIndex) -> None:
    crops = [crop(key) for key in range(1, 12)]
    index.apply(crops)
    found = ask(index, query_for(7), ANY, 11)
    assert set(keys(found)) == set(range(1, 12))
    assert found.keys[0] == 7
    assert found.similarities[0] > found.similarities[1]
    assert (np.diff(found.similarities) <= 0).all()
    assert (found.compared, found.gallery_size, index.size, index.last_sequence) == (11, 11, 11, 11)


def test_a_removed_crop_is_not_found_and_the_others_are(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 12)])
    index.apply([Removal(12, 3), Removal(13, 11), Removal(14, 1)])
    assert all_keys(index) == {2, 4, 5, 6, 7, 8, 9, 10}
    assert all(is_found(index, key) for key in (2, 4, 5, 6, 7, 8, 9, 10))
    assert (index.size, index.last_sequence) == (8, 14)


def test_all_crops_can_be_removed_and_added_again(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 10)])
    index.apply([Removal(key + 9, key) for key in range(1, 10)])
    assert (index.size, all_keys(index)) == (0, set())
    index.apply([crop(key, sequence=key + 18) for key in range(1, 10)])
    assert all(is_found(index, key) for key in range(1, 10))


def test_changes_of_a_batch_are_applied_in_their_order(index: VectorIndex) -> None:
    index.apply([crop(1), crop(2), Removal(3, 1), crop(1, sequence=4, vector=embedding(77)), Removal(5, 2)])
    assert keys(ask(index, query_for(77), ANY, 5)) == [1]
    assert index.size == 1


def test_top_k_larger_than_the_gallery_gives_all(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 4)])
    assert len(ask(index, query_for(1), ANY, 1000).keys) == 3


def test_candidates_of_equal_similarity_are_sorted_by_key(index: VectorIndex) -> None:
    index.apply([crop(key, sequence, embedding(1)) for sequence, key in enumerate((9, 2, 14, 5, 30, 11, 1), 1)])
    assert keys(ask(index, query_for(1), ANY, 10)) == [1, 2, 5, 9, 11, 14, 30]
    assert len(set(ask(index, query_for(1), ANY, 10).similarities.tolist())) == 1
    assert len(ask(index, query_for(1), ANY, 3).keys) >= 3


def test_applying_changes_again_changes_nothing(index: VectorIndex) -> None:
    changes: list[Change] = [crop(1), crop(2), Removal(3, 1), crop(4)]
    index.apply(changes)
    index.apply(changes)
    index.apply(changes[2:])
    assert all_keys(index) == {2, 4}
    assert (index.size, index.last_sequence) == (2, 4)


def test_adding_a_present_key_and_removing_an_absent_one_change_nothing(index: VectorIndex) -> None:
    index.apply([crop(1)])
    index.apply([crop(1, sequence=2), Removal(3, 1234)])
    assert all_keys(index) == {1}
    assert is_found(index, 1)
    assert (index.size, index.last_sequence) == (1, 3)


def test_the_addition_of_a_present_key_replaces_its_fields(index: VectorIndex) -> None:
    index.apply([crop(key, person="anna", attributes='{"lane":1}') for key in range(1, 6)])
    index.apply([crop(key, key + 5, embedding(key), "hall", 7, "t", "bert", '{"lane":2}') for key in (1, 3, 5)])
    for old in (Filter(person_id="anna"), having(("lane", "1")), Filter(camera_ids=frozenset({"gate"}))):
        assert all_keys(index, old) == {2, 4}
    for new in (Filter(person_id="bert"), Filter(track_id="t"), having(("lane", "2")), Filter(captured_from=7)):
        assert all_keys(index, new) == {1, 3, 5}
    assert all(is_found(index, key) for key in range(1, 6))
    index.apply([crop(3, 11), Removal(12, 1)])
    assert (all_keys(index, Filter(person_id="bert")), all_keys(index), index.size) == ({5}, {2, 3, 4, 5}, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_the_embedding_that_is_not_finite_is_refused(index: VectorIndex, value: float) -> None:
    broken = embedding(2).copy()
    broken[2047] = value
    assert index.apply([crop(1), crop(2, vector=broken), crop(3)]) == {2}
    assert index.load([crop(4, vector=broken), crop(5)], 3) == {4}
    assert all_keys(index) == {1, 3, 5}
    assert (index.size, index.last_sequence) == (3, 3)


def test_only_the_embedding_of_another_length_is_refused(index: VectorIndex) -> None:
    assert index.apply([crop(1, vector=embedding(1)[:2047]), crop(2)]) == {1}
    assert all_keys(index) == {2}


@pytest.mark.parametrize(
    "queries", [np.full((1, 2048), np.nan, np.float32), np.zeros((1, 2047), np.float32), np.zeros(2048, np.float32)]
)
def test_a_query_that_is_no_embedding_is_an_error(index: VectorIndex, queries: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2048 finite numbers"):
        index.search(queries, ANY, 5)


def test_several_queries_at_once_give_what_each_gives_alone(index: VectorIndex) -> None:
    index.apply([crop(key, camera="hall" if key % 3 else "gate") for key in range(1, 60)])
    queries = np.stack([query_for(key) for key in range(50, 66)])
    for crop_filter in (ANY, Filter(camera_ids=frozenset({"hall"})), Filter(camera_ids=frozenset({"nowhere"}))):
        for query, found in zip(queries, index.search(queries, crop_filter, 7), strict=True):
            alone = ask(index, query, crop_filter, 7)
            assert keys(found)[:7] == keys(alone)[:7]
            assert (found.compared, found.gallery_size) == (alone.compared, alone.gallery_size)


def test_asking_for_less_than_one_crop_is_an_error(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="top_k"):
        ask(index, query_for(1), ANY, 0)


def test_rows_are_loaded_whatever_their_sequence(index: VectorIndex) -> None:
    index.load([], 50)
    index.load([crop(3, sequence=0), crop(1, sequence=70)], 50)
    index.load([crop(2, sequence=0), crop(3, sequence=0)], 50)
    index.apply([crop(4, sequence=50), crop(5, sequence=51), Removal(52, 1)])
    assert all_keys(index) == {2, 3, 5}
    assert index.last_sequence == 52
