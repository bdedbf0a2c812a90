"""The index in the process with a segment: how crops move between the write buffer and the segment, and leave both."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import faiss
import numpy as np
import pytest

from app.index.columns import Columns
from app.index.faiss_index import FaissIndex, IndexClosed, Tuning
from app.index.nearest import NO_CROP, UNTYPED_FAISS, PartialResult
from app.index.port import Addition, Filter, Removal
from app.index.segment import Segment, nlist_for, sample_size
from tests.app.index.index_factories import ANY, all_keys, ask, crop, embedding, is_found, keys, query_for
from tests.app.index.segment_factories import SMALL, index_of, index_with_segment, persons


def columns_of(*additions: Addition) -> Columns:
    columns = Columns()
    for addition in additions:
        columns.append(addition.key, addition.columns)
    return columns


def candidates(found: PartialResult) -> list[int]:
    """The keys of a segment's result for one query."""
    return found.keys[found.similarities != NO_CROP].tolist()


def test_a_gallery_up_to_the_limit_has_no_segment() -> None:
    index = index_of([crop(key) for key in range(1, 41)])
    assert (index.segment_size, index.size, index.outgrown) == (0, 40, False)
    index.apply([crop(41)])
    assert index.outgrown


def test_a_gallery_that_is_too_small_for_a_segment_needs_none_whatever_the_limit() -> None:
    """Otherwise the index would be rebuilt again and again."""
    tuning = Tuning(exact_limit=0)
    for count in (0, 1, 16):
        index = index_of([crop(key) for key in range(count)], tuning)
        assert (index.segment_size, index.outgrown) == (0, False)
    index = index_of([crop(key) for key in range(17)], tuning)
    assert (index.segment_size, index.outgrown) == (17, False)


def test_a_sample_grows_with_the_lists_and_is_never_more_than_the_gallery() -> None:
    assert [sample_size(crops) for crops in (100, 50_000, 1_000_000)] == [100, 50_000, 50_000]
    assert sample_size(100_000_000) == 12 * nlist_for(100_000_000)


def test_a_growing_gallery_is_found_in_buffer_and_segment() -> None:
    index = index_with_segment(60)
    for key in range(61, 90):
        index.apply([crop(key)])
        assert is_found(index, key)
        index.maintain()
        assert all_keys(index) == set(range(1, key + 1))
    assert (index.segment_size, index.size) == (80, 89)  # crops move ten at a time


def test_a_gallery_that_shrinks_below_half_the_limit_is_outgrown() -> None:
    index = index_with_segment(60)
    index.apply([Removal(100 + key, key) for key in range(1, 41)])
    assert index.size == 20
    assert index_of([crop(key) for key in range(41, 61)]).segment_size == 0
    assert index.outgrown


def test_a_segment_is_outgrown_when_a_quarter_of_its_rows_is_empty() -> None:
    index = index_with_segment(200)
    index.apply([Removal(200 + key, key) for key in range(1, 51)])
    index.maintain()
    assert not index.outgrown
    index.apply([Removal(300, 100)])
    assert index.outgrown


def test_a_segment_is_outgrown_when_it_should_have_twice_the_lists() -> None:
    segment = Segment.train(np.stack([embedding(key) for key in range(100)]), 100, lambda: None)
    assert segment.nlist == nlist_for(100) == 32
    outgrown = []
    for start in range(0, 300, 100):
        more = [crop(key) for key in range(start, start + 100)]
        segment.add(columns_of(*more), np.stack([addition.embedding for addition in more]))
        outgrown.append(segment.outgrown)
    assert nlist_for(200) == 64
    assert outgrown == [False, True, True]


def test_codes_of_removed_crops_leave_the_segment_and_its_snapshot(tmp_path: Path) -> None:
    kept, dropped = crop(1), crop(2)
    segment = Segment.train(np.stack([embedding(key) for key in range(1, 101)]), 100, lambda: None)
    segment.add(columns_of(kept, dropped), np.stack([kept.embedding, dropped.embedding]))
    code = segment.codes_of(np.array([1]))
    assert code.any()
    segment.remove(2)
    assert segment.tombstones == 1
    segment.compact()
    assert (segment.tombstones, len(segment)) == (0, 1)
    assert not segment.codes_of(np.array([1])).any()
    segment.save(tmp_path, segment.columns)
    assert code.tobytes() not in (tmp_path / "segment.faiss").read_bytes()
    restored = Segment.restore(tmp_path)
    assert len(restored) == 1
    assert candidates(restored.search(query_for(2)[None], ANY, 5)) == [1]


def list_codes(segment: Segment) -> list[bytes]:
    """The codes in all IVF lists, with the unused places of their blocks."""
    index = UNTYPED_FAISS.downcast_index(UNTYPED_FAISS.extract_index_ivf(segment._codes))
    lists = UNTYPED_FAISS.downcast_InvertedLists(index.invlists)
    sizes = [-(-lists.list_size(number) // lists.n_per_block) * lists.block_size for number in range(lists.nlist)]
    return [
        faiss.rev_swig_ptr(lists.get_codes(number), size).tobytes() if size else b""
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("removed", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_removed_crops_leave_nothing_in_the_lists(removed: list[int]) -> None:
    """All three crops are in one list, and a removed one may be in any place of it."""
    near = embedding(1).astype(np.float32)
    vectors = np.stack([near + np.float32(share) * embedding(key) for key, share in ((1, 0), (2, 0.4), (3, 0.4))])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    kept = [row for row in range(3) if row not in removed]

    def segment_of(rows: list[int]) -> Segment:
        segment = Segment.train(np.stack([embedding(key) for key in range(1, 101)]), 100, lambda: None)
        segment.add(columns_of(*(crop(row + 1) for row in rows)), vectors[rows])
        return segment

    segment = segment_of([0, 1, 2])
    assert sum(map(bool, list_codes(segment))) == 1
    for row in removed:
        segment.remove(row + 1)
    segment.compact()
    (left,) = filter(None, list_codes(segment))
    expected = {next(filter(None, list_codes(segment_of(list(order))))) for order in permutations(kept)}
    assert left in expected


def test_a_crop_that_is_removed_just_before_a_snapshot_is_no_candidate_after_its_restore(tmp_path: Path) -> None:
    segment = Segment.train(np.stack([embedding(key) for key in range(1, 101)]), 100, lambda: None)
    gallery = [crop(key) for key in range(1, 101)]
    segment.add(columns_of(*gallery), np.stack([addition.embedding for addition in gallery]))
    segment.remove(2)
    segment.save(tmp_path, segment.columns)
    restored = Segment.restore(tmp_path)
    assert restored.tombstones == 1
    assert set(candidates(restored.search(query_for(2)[None], ANY, 100))) == {1, *range(3, 101)}
    restored.compact()
    assert set(candidates(restored.search(query_for(2)[None], ANY, 100))) == {1, *range(3, 101)}


def test_a_snapshot_holds_no_code_of_a_removed_crop(tmp_path: Path) -> None:
    index = index_with_segment(60)
    index.apply([Removal(100, 7)])
    index.save(tmp_path)
    restored = Segment.restore(tmp_path)
    assert len(restored) == 59
    assert not restored.codes_of(np.array([6])).any()


def test_a_removed_crop_can_be_added_again() -> None:
    index = index_with_segment(60)
    index.apply([Removal(100, 7)])
    index.maintain()
    index.apply([crop(7, sequence=101, vector=embedding(700), camera="hall")])
    assert keys(ask(index, query_for(700), Filter(camera_ids=frozenset({"hall"})), 5)) == [7]
    index.apply([crop(key, sequence=101 + key) for key in range(61, 75)])
    index.maintain()
    assert index.segment_size == 74
    assert keys(ask(index, query_for(700), Filter(camera_ids=frozenset({"hall"})), 5)) == [7]


def test_searches_changes_maintenance_and_saving_run_concurrently(tmp_path: Path, seed: int) -> None:
    staying = {key: crop(key, camera="staying") for key in range(1, 200)}
    index = index_of(list(staying.values()))
    done = threading.Event()
    rounds = [0]

    def search_until_done() -> None:
        crop_filter = Filter(camera_ids=frozenset({"staying"}))
        while not done.is_set():
            found = ask(index, query_for(1), crop_filter, 1000)
            assert set(keys(found)) == staying.keys()
            assert found.compared == len(staying)
            everything = ask(index, query_for(1), ANY, 1000)
            assert everything.compared == everything.gallery_size == len(everything.keys)
            assert len(set(keys(everything))) == len(everything.keys)

    def maintain_until_done() -> None:
        while not done.is_set():
            index.maintain()
            rounds[0] += 1

    def save_until_done() -> None:
        number = 0
        while not done.is_set():
            number += 1
            folder = tmp_path / str(number)
            folder.mkdir()
            state = index.save(folder)
            restored = FaissIndex.restore(folder, state, tuning=SMALL)
            assert staying.keys() <= all_keys(restored)

    def change() -> None:
        rng = random.Random(seed)
        present: set[int] = set()
        sequence, moved = 1000, False
        while (rounds[0] < 20 or not moved) and not any(thread.done() for thread in running):
            changes: list[Addition | Removal] = []
            for key in rng.sample(range(1000, 1400), rng.randrange(1, 60)):
                sequence += 1
                changes.append(Removal(sequence, key) if key in present else crop(key, sequence))
                present ^= {key}
            index.apply(changes)
            moved = moved or index.segment_size > len(staying)

    with ThreadPoolExecutor(4) as threads:
        running = [
            threads.submit(work)
            for work in (search_until_done, search_until_done, maintain_until_done, save_until_done)
        ]
        try:
            change()
        finally:
            done.set()
        for thread in running:
            thread.result()


def test_closing_ends_the_training_of_a_segment() -> None:
    index = FaissIndex("model", SMALL)
    index.close()
    with pytest.raises(IndexClosed):
        index.prepare(np.stack([embedding(key) for key in range(100)]), 1000)
    assert index.segment_size == 0


def test_closing_ends_a_flush_with_every_crop_in_one_place() -> None:
    index = index_with_segment(60)
    index.apply([crop(key) for key in range(61, 300)])
    index.close()
    index.maintain()
    assert all_keys(index) == set(range(1, 300))
    assert index.segment_size == 60


def test_a_sample_with_invalid_embeddings_trains_on_the_others() -> None:
    gallery = persons(10, 20)
    sample = np.stack([addition.embedding for addition in gallery])
    sample[::7] = np.nan
    index = FaissIndex("model", SMALL)
    assert index.sample_size(200) == 200
    index.prepare(sample, 200)
    index.load(gallery, 200)
    index.maintain()
    assert index.segment_size == 200
    assert all(key in keys(ask(index, gallery[key - 1].embedding.astype(np.float32), ANY, 1)) for key in (1, 99))


def test_crops_stay_in_the_buffer_if_the_sample_has_no_valid_embedding() -> None:
    index = FaissIndex("model", SMALL)
    index.prepare(np.full((50, 2048), np.nan, np.float16), 50)
    assert index.load([crop(1)], 1) == set()
    assert (index.segment_size, index.size) == (0, 1)
