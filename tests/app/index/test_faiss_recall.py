"""The recall of the index in the process with a segment."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_factories import ANY, MODEL, keys, query_for
from segment_factories import SMALL, index_with_segment, persons

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, Filter, IndexResult
from app.index.tuning import Tuning


@pytest.fixture(scope="module")
def gallery() -> list[Addition]:
    return persons(300, 20)


@pytest.fixture(scope="module")
def large(gallery: list[Addition], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaissIndex]:
    """An index with the default tuning of a large gallery, except for the limits."""
    tuning = Tuning(exact_limit=1000, exact_filter_limit=100, refine_filter_limit=500)
    index = FaissIndex(MODEL, tmp_path_factory.mktemp("working"), tuning)
    index.load(gallery, 0)
    index.maintain()
    assert index.segment_size == len(gallery)
    yield index
    index.close()


def test_a_search_compares_a_small_part_of_the_gallery(large: FaissIndex, gallery: list[Addition]) -> None:
    assert large._segment is not None
    assert large._segment.search_depth.candidates(10, 1) < len(gallery) // 10
    assert large._segment.search_depth.refined(10, 1) < 40


@pytest.mark.parametrize("top_k", [1, 10, 100, 1000])
def test_almost_all_true_matches_are_found(large: FaissIndex, gallery: list[Addition], top_k: int) -> None:
    assert _recall(large, gallery, ANY, gallery, top_k, 300 if top_k < 1000 else 60) > 0.98


@pytest.mark.parametrize("cameras", [1, 5, 25])
def test_almost_all_true_matches_that_pass_a_filter_are_found(
    large: FaissIndex, gallery: list[Addition], cameras: int
) -> None:
    named = frozenset(f"camera {number}" for number in range(cameras))
    passing = [addition for addition in gallery if addition.columns.camera_id in named]
    assert _recall(large, gallery, Filter(camera_ids=named), passing, 10, 300) > 0.98


def test_almost_all_true_matches_of_weighted_queries_are_found(large: FaissIndex, gallery: list[Addition]) -> None:
    weights = np.repeat(np.array([1, 0, 2, 1, 0.5, 1, 1, 3], np.float32), 256)
    assert _recall(large, gallery, ANY, gallery, 10, 300, weights) > 0.97


def test_a_search_goes_deeper_only_if_its_part_weights_differ_from_the_gallerys(
    large: FaissIndex, gallery: list[Addition]
) -> None:
    segment = large._segment
    assert segment is not None
    query = gallery[0].embedding.astype(np.float32)
    lengths = np.linalg.norm(query.reshape(8, 256), axis=1)
    assert lengths.max() > 3 * lengths.min(), "the parts of this gallery have different lengths"
    weighted = query * np.repeat(np.array([0, 1, 1, 1, 1, 1, 1, 1], np.float32), 256)
    plain, deeper = segment.find_candidates(np.stack([query, weighted]), ANY, 10)
    assert plain.refined == segment.search_depth.refined(10, 1)
    assert deeper.refined > plain.refined


def test_concurrent_searches_find_what_each_finds_alone(
    large: FaissIndex, gallery: list[Addition], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    heavy = np.repeat(np.array([8, 1, 1, 1, 1, 1, 1, 1], np.float32), 256)
    searches = [
        (
            rng.choice(gallery).embedding * rng.choice([np.float32(1), heavy]),
            rng.choice([ANY, Filter(camera_ids=frozenset({"camera 1"})), Filter(captured_to=3000)]),
            rng.choice([1, 10]),
            rng.choice([None, 0.5]),
        )
        for _ in range(400)
    ]
    alone = [large.search(*arguments) for arguments in searches]
    sizes: list[int] = []

    def counted(searches: Sequence[Any]) -> list[IndexResult]:
        sizes.append(len(searches))
        return large._search_batch(searches)

    monkeypatch.setattr(large._searches, "_work", counted)
    with ThreadPoolExecutor(24) as threads:
        concurrent = list(threads.map(lambda arguments: large.search(*arguments), searches))
    assert concurrent == alone
    assert max(sizes) == 4, "no batch was full: the test showed little"


def test_an_invalid_query_fails_no_search_of_its_batch(large: FaissIndex, gallery: list[Addition]) -> None:
    good = [addition.embedding.astype(np.float32) for addition in gallery[:60]]
    bad = np.full(2048, np.nan, np.float32)
    with ThreadPoolExecutor(24) as threads:
        refused = [threads.submit(large.search, bad, ANY, 1) for _ in range(20)]
        found = list(threads.map(lambda query: large.search(query, ANY, 1), good))
    assert [result.hits[0].key for result in found] == [addition.key for addition in gallery[:60]]
    assert all(isinstance(search.exception(), ValueError) for search in refused)


def _recall(
    index: FaissIndex,
    gallery: Sequence[Addition],
    crop_filter: Filter,
    passing: Sequence[Addition],
    top_k: int,
    queries: int,
    weights: np.ndarray | float = 1.0,
) -> float:
    """The share of the true `top_k` that is found; asserts the similarity of each hit."""
    found = 0
    embeddings = np.stack([crop.embedding for crop in passing]).astype(np.float32)
    for addition in random.sample(gallery, queries):
        query = (addition.embedding * weights).astype(np.float32)
        truth = embeddings @ query
        best = {passing[place].key for place in np.argsort(-truth)[:top_k].tolist()}
        hits = index.search(query, crop_filter, top_k).hits
        assert len(hits) == min(top_k, len(passing))
        by_key = {crop.key: value for crop, value in zip(passing, truth.tolist(), strict=True)}
        for hit in hits:
            assert hit.similarity == pytest.approx(by_key[hit.key], abs=1e-4)
        found += len(best & {hit.key for hit in hits})
    return found / (queries * min(top_k, len(passing)))


def test_a_filter_never_costs_matches_while_more_exist(tmp_path: Path) -> None:
    """Even if a search probes one list and compares one crop."""

    index = index_with_segment(tmp_path, 200, replace(SMALL, nlist=16, nprobe=1, candidates=1, refined=1))
    for crop_filter, passing in ((ANY, 200), (Filter(captured_from=0), 200)):
        for top_k in (1, 10, 150, 500):
            assert len(keys(index.search(query_for(3), crop_filter, top_k))) == min(top_k, passing)
