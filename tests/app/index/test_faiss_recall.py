"""The recall of the index in the process with a segment."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.index.faiss_index import FaissIndex, Tuning
from app.index.port import Addition, Filter, Removal
from tests.app.index.index_factories import ANY, ask, assert_equal, keys, query_for
from tests.app.index.segment_factories import index_of, index_with_segment, persons


@pytest.fixture(scope="module")
def gallery() -> list[Addition]:
    return persons(300, 75)


@pytest.fixture(scope="module")
def large(gallery: list[Addition]) -> FaissIndex:
    """An index of so many crops that searches use the IVF lists."""
    index = index_of(gallery, Tuning(exact_limit=1000))
    assert index.segment_size == len(gallery)
    return index


def test_a_search_returns_a_small_part_of_the_gallery(large: FaissIndex, gallery: list[Addition]) -> None:
    assert len(ask(large, gallery[0].embedding.astype(np.float32), ANY, 10).keys) < 100


@pytest.mark.parametrize("top_k", [1, 10, 100, 1000])
def test_almost_all_true_matches_are_found(large: FaissIndex, gallery: list[Addition], top_k: int) -> None:
    assert _recall(large, gallery, ANY, gallery, top_k, 200 if top_k < 1000 else 40) > 0.98


@pytest.mark.parametrize("cameras", [1, 5, 47, 49])
def test_almost_all_true_matches_that_pass_a_filter_are_found(
    large: FaissIndex, gallery: list[Addition], cameras: int
) -> None:
    """1 and 5 cameras leave so few crops that all codes are compared; 47 and 49 leave many."""
    named = frozenset(f"camera {number}" for number in range(cameras))
    passing = [addition for addition in gallery if addition.columns.camera_id in named]
    assert _recall(large, gallery, Filter(camera_ids=named), passing, 10, 200) > 0.98


def test_almost_all_true_matches_of_weighted_queries_are_found(large: FaissIndex, gallery: list[Addition]) -> None:
    weights = np.repeat(np.array([1, 0, 2, 1, 0.5, 1, 1, 3], np.float32), 256)
    assert _recall(large, gallery, ANY, gallery, 10, 200, weights) > 0.97


def test_deleted_crops_are_no_candidates_before_their_codes_are_removed(
    large: FaissIndex, gallery: list[Addition], tmp_path: Path
) -> None:
    index = FaissIndex.restore(tmp_path, large.save(tmp_path))
    query = gallery[7].embedding.astype(np.float32)
    best = keys(ask(index, query, ANY, 10))
    index.apply([Removal(len(gallery) + place, key) for place, key in enumerate(best, start=1)])
    before = ask(index, query, ANY, 10)
    assert not set(keys(before)) & set(best)
    assert len(before.keys) >= 10
    index.maintain()
    after = ask(index, query, ANY, 10)
    assert not set(keys(after)) & set(best)
    assert (after.compared, after.gallery_size) == (len(gallery) - len(best),) * 2


def test_concurrent_searches_find_what_each_finds_alone(large: FaissIndex, gallery: list[Addition], seed: int) -> None:
    rng = random.Random(seed)
    heavy = np.repeat(np.array([8, 1, 1, 1, 1, 1, 1, 1], np.float32), 256)
    searches = [
        (
            rng.choice(gallery).embedding * rng.choice([np.float32(1), heavy]),
            rng.choice([ANY, Filter(camera_ids=frozenset({"camera 1"})), Filter(captured_to=21_000)]),
            rng.choice([1, 10]),
        )
        for _ in range(200)
    ]
    alone = [ask(large, *arguments) for arguments in searches]
    with ThreadPoolExecutor(24) as threads:
        concurrent = list(threads.map(lambda arguments: ask(large, *arguments), searches))
    for found, expected in zip(concurrent, alone, strict=True):
        assert_equal(found, expected)


def test_a_filter_never_costs_matches_while_more_exist() -> None:
    """Even if most of them are in lists that a search of this depth leaves out."""
    index = index_with_segment(200)
    for top_k in (1, 10, 150, 500):
        for crop_filter in (ANY, Filter(captured_from=0)):
            assert len(keys(ask(index, query_for(3), crop_filter, top_k))) >= min(top_k, 200)


def _recall(
    index: FaissIndex,
    gallery: Sequence[Addition],
    crop_filter: Filter,
    passing: Sequence[Addition],
    top_k: int,
    queries: int,
    weights: np.ndarray | float = 1.0,
) -> float:
    """The share of the true `top_k` that is among the candidates."""
    found = 0
    embeddings = np.stack([addition.embedding for addition in passing]).astype(np.float32)
    for addition in random.sample(gallery, queries):
        query = (addition.embedding * weights).astype(np.float32)
        best = {passing[place].key for place in np.argsort(-(embeddings @ query))[:top_k].tolist()}
        hits = keys(ask(index, query, crop_filter, top_k))
        assert len(set(hits)) == len(hits) >= min(top_k, len(passing))
        found += len(best & set(hits))
    return found / (queries * min(top_k, len(passing)))
