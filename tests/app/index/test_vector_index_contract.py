"""What every adapter of the index port keeps to. A new adapter adds itself to ADAPTERS or SERVERS and passes.

PASSERBY_TEST_MILVUS_URL names a Milvus server, other than the Milvus Lite that tests start, that is to pass, too.
"""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_factories import ANY, MODEL, all_keys, crop, embedding, is_found, keys, query_for, similarities

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, Change, Filter, Removal, SavedState, SnapshotError, SnapshotIndex, VectorIndex
from app.index.tuning import Tuning


@dataclass(frozen=True)
class Adapter:
    """How an adapter's indexes come to be."""

    new: Callable[[Path], SnapshotIndex]
    restore: Callable[[Path, SavedState, Path], SnapshotIndex]


class KeptUp(FaissIndex):
    """Does its upkeep after each change, so that crops move between the tiers all the time."""

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        refused = super().apply(changes)
        assert not self.upkeep()
        return refused


def faiss(kind: type[FaissIndex], tuning: Tuning, block_rows: int = 4096) -> Adapter:
    def restore(folder: Path, state: SavedState, working: Path) -> SnapshotIndex:
        return kind.restore(folder, state, working=working, tuning=tuning, block_rows=block_rows)

    return Adapter(lambda working: kind(MODEL, working, tuning, block_rows), restore)


TIERED = Tuning(exact_limit=4, code_dims=16, code="SQ8", cells=2, probes=1, candidates=1, narrow_limit=0, fresh_limit=2)
ADAPTERS = {
    "faiss exact": faiss(FaissIndex, Tuning()),
    "faiss exact, many blocks": faiss(FaissIndex, Tuning(), block_rows=4),
    "faiss tiered, few pass": faiss(KeptUp, replace(TIERED, narrow_limit=1000)),
    "faiss tiered, many pass": faiss(KeptUp, replace(TIERED, probes=2, candidates=1000)),
}

SERVERS = {"milvus lite": "milvus_lite", "milvus": "milvus"}
"""The fixture that gives a server's address."""


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture
def milvus() -> str:
    if not (url := os.environ.get("PASSERBY_TEST_MILVUS_URL")):
        pytest.skip("PASSERBY_TEST_MILVUS_URL names no Milvus server")
    return url


@pytest.fixture(params=[*ADAPTERS, *SERVERS])
def index(request: pytest.FixtureRequest, working: Path) -> Iterator[VectorIndex]:
    if request.param in ADAPTERS:
        index = ADAPTERS[request.param].new(working)
        yield index
        index.close()
        return
    url = request.getfixturevalue(SERVERS[request.param])
    from milvus_factories import index_on  # needs wheels that the fixture looked for

    with index_on(url) as on_server:
        yield on_server


@pytest.fixture
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working")


def test_a_new_index_is_empty(index: VectorIndex) -> None:
    assert (index.model_id, index.size, index.last_sequence) == (MODEL, 0, 0)
    found = index.search(query_for(1), ANY, 5)
    assert (found.hits, found.compared, found.gallery_size) == ((), 0, 0)


def test_an_added_crop_is_found_with_its_similarity(index: VectorIndex) -> None:
    crops = [crop(key) for key in range(1, 12)]
    index.apply(crops)
    found = index.search(query_for(7), ANY, 11)
    expected = dict(zip(range(1, 12), similarities(query_for(7), crops), strict=True))
    assert keys(found) == sorted(expected, key=lambda key: -expected[key])
    for hit in found.hits:
        assert hit.similarity == pytest.approx(expected[hit.key], abs=1e-6)
    assert (found.compared, found.gallery_size, index.size, index.last_sequence) == (11, 11, 11, 11)


def test_a_removed_crop_is_found_no_more_and_the_others_are(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 12)])
    index.apply([Removal(12, 3), Removal(13, 11), Removal(14, 1)])
    assert all_keys(index) == {2, 4, 5, 6, 7, 8, 9, 10}
    assert all(is_found(index, key) for key in (2, 4, 5, 6, 7, 8, 9, 10))
    assert (index.size, index.last_sequence) == (8, 14)


def test_everything_can_be_removed_and_come_again(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 10)])
    index.apply([Removal(key + 9, key) for key in range(1, 10)])
    assert (index.size, all_keys(index)) == (0, set())
    index.apply([crop(key, sequence=key + 18) for key in range(1, 10)])
    assert all(is_found(index, key) for key in range(1, 10))


def test_changes_of_one_batch_happen_in_their_order(index: VectorIndex) -> None:
    index.apply([crop(1), crop(2), Removal(3, 1), crop(1, sequence=4, vector=embedding(77)), Removal(5, 2)])
    assert keys(index.search(query_for(77), ANY, 5, min_similarity=0.9)) == [1]
    assert index.size == 1


def test_top_k_larger_than_the_gallery_gives_all(index: VectorIndex) -> None:
    index.apply([crop(key) for key in range(1, 4)])
    assert len(index.search(query_for(1), ANY, 1000).hits) == 3


def test_min_similarity_cuts_what_is_less_similar(index: VectorIndex) -> None:
    crops = [crop(key) for key in range(1, 10)]
    index.apply(crops)
    found = index.search(query_for(1), ANY, 9, min_similarity=0.0)
    expected = {one.key for one, value in zip(crops, similarities(query_for(1), crops), strict=True) if value >= 0}
    assert set(keys(found)) == expected
    assert 1 <= len(expected) < 9
    assert found.compared == 9
    assert index.search(query_for(1), ANY, 9, min_similarity=1.5).hits == ()


def test_equal_similarities_come_in_the_order_of_their_keys(index: VectorIndex) -> None:
    index.apply([crop(key, sequence, embedding(1)) for sequence, key in enumerate((9, 2, 14, 5, 30, 11, 1), 1)])
    assert keys(index.search(query_for(1), ANY, 10)) == [1, 2, 5, 9, 11, 14, 30]
    assert len({hit.similarity for hit in index.search(query_for(1), ANY, 10).hits}) == 1
    assert len(index.search(query_for(1), ANY, 3).hits) == 3


GALLERY = [
    crop(1, camera="gate", at=100, track="t1", person="anna", attributes='{"bag":true,"colour":"red","lane":1}'),
    crop(2, camera="gate", at=200, track="t1", attributes='{"colour":"red","lane":"1"}'),
    crop(3, camera="hall", at=200, track="t2", person="bert", attributes='{"colour":"reddish","seen":{"lane":1}}'),
    crop(4, camera="hall", at=300, person="anna", attributes='{"bag":1,"colour":"red","größe":"☃"}'),
    crop(5, camera="yard", at=400, track="t1", person="anna"),
    crop(6, camera="yard", at=500),
]


def _having(*pairs: tuple[str, str]) -> Filter:
    return Filter(attributes=frozenset(pairs))


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(), {1, 2, 3, 4, 5, 6}),
        (Filter(camera_ids=frozenset({"gate"})), {1, 2}),
        (Filter(camera_ids=frozenset({"gate", "yard", "unheard-of"})), {1, 2, 5, 6}),
        (Filter(camera_ids=frozenset({"unheard-of"})), set()),
        (Filter(exclude_camera_ids=frozenset({"gate"})), {3, 4, 5, 6}),
        (Filter(exclude_camera_ids=frozenset({"unheard-of"})), {1, 2, 3, 4, 5, 6}),
        (Filter(camera_ids=frozenset({"gate", "hall"}), exclude_camera_ids=frozenset({"hall"})), {1, 2}),
        (Filter(captured_from=200), {2, 3, 4, 5, 6}),
        (Filter(captured_to=200), {1}),
        (Filter(captured_from=200, captured_to=400), {2, 3, 4}),
        (Filter(captured_from=300, captured_to=200), set()),
        (Filter(person_id="anna"), {1, 4, 5}),
        (Filter(person_id="nobody"), set()),
        (Filter(track_id="t1"), {1, 2, 5}),
        (Filter(track_id="t1", camera_ids=frozenset({"gate"})), {1, 2}),
        (Filter(person_id="anna", track_id="t1", captured_from=101), {5}),
        (Filter(frozenset({"yard", "hall"}), frozenset({"gate"}), 200, 500, "anna", "t1"), {5}),
        (_having(("colour", '"red"')), {1, 2, 4}),
        (_having(("colour", '"red"'), ("bag", "true")), {1}),
        (_having(("bag", "1")), {4}),
        (_having(("lane", "1")), {1}),
        (_having(("lane", '"1"')), {2}),
        (_having(("seen", '{"lane":1}')), {3}),
        (_having(("colour", '"red"'), ("colour", '"reddish"')), set()),
        (_having(("colour", "null")), set()),
        (_having(("größe", '"☃"')), {4}),
        (_having(("unheard-of", '"red"')), set()),
        (replace(_having(("colour", '"red"')), camera_ids=frozenset({"gate"}), captured_from=200), {2}),
    ],
)
def test_a_search_looks_only_at_what_passes_the_filter(index: VectorIndex, which: Filter, expected: set[int]) -> None:
    index.apply(GALLERY)
    found = index.search(query_for(1), which, 100)
    assert set(keys(found)) == expected
    assert (found.compared, found.gallery_size) == (len(expected), 6)
    assert [hit.similarity for hit in found.hits] == sorted((hit.similarity for hit in found.hits), reverse=True)


def test_a_filter_never_costs_matches_while_more_exist(index: VectorIndex) -> None:
    near = [crop(key, vector=embedding(1), camera="gate") for key in range(1, 30)]
    far = [crop(key, camera="hall") for key in range(30, 40)]
    index.apply(near + far)
    assert len(index.search(query_for(1), Filter(camera_ids=frozenset({"hall"})), 10).hits) == 10


def test_applying_changes_again_changes_nothing(index: VectorIndex) -> None:
    changes: list[Change] = [crop(1), crop(2), Removal(3, 1), crop(4)]
    index.apply(changes)
    index.apply(changes)
    index.apply(changes[2:])
    assert all_keys(index) == {2, 4}
    assert (index.size, index.last_sequence) == (2, 4)


def test_a_key_that_is_there_is_not_there_twice_and_an_unknown_one_is_not_removed(index: VectorIndex) -> None:
    index.apply([crop(1)])
    index.apply([crop(1, sequence=2), Removal(3, 1234)])
    assert all_keys(index) == {1}
    assert is_found(index, 1)
    assert (index.size, index.last_sequence) == (1, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_not_finite_is_refused_alone(index: VectorIndex, value: float) -> None:
    broken = embedding(2).copy()
    broken[2047] = value
    assert index.apply([crop(1), crop(2, vector=broken), crop(3)]) == (2,)
    assert index.load([crop(4, vector=broken), crop(5)], 3) == (4,)
    assert all_keys(index) == {1, 3, 5}
    assert (index.size, index.last_sequence) == (3, 3)


def test_an_embedding_of_another_length_is_refused_alone(index: VectorIndex) -> None:
    assert index.apply([crop(1, vector=embedding(1)[:2047]), crop(2)]) == (1,)
    assert all_keys(index) == {2}


@pytest.mark.parametrize(
    "query", [np.full(2048, np.nan, np.float32), np.zeros(2047, np.float32), np.zeros((1, 2048), np.float32)]
)
def test_a_query_that_is_no_embedding_is_an_error(index: VectorIndex, query: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2048 finite numbers"):
        index.search(query, ANY, 5)


def test_asking_for_less_than_one_crop_is_an_error(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="top_k"):
        index.search(query_for(1), ANY, 0)


def test_rows_are_loaded_whatever_their_sequence(index: VectorIndex) -> None:
    index.load([], 50)
    index.load([crop(3, sequence=0), crop(1, sequence=70)], 50)
    index.load([crop(2, sequence=0), crop(3, sequence=0)], 50)
    index.apply([crop(4, sequence=50), crop(5, sequence=51), Removal(52, 1)])
    assert all_keys(index) == {2, 3, 5}
    assert index.last_sequence == 52


def test_a_restored_index_is_the_index_that_was_saved(adapter: Adapter, working: Path, tmp_path: Path) -> None:
    index = adapter.new(working)
    index.apply([*GALLERY, crop(7, camera="tür-ø", track="\N{SNOWMAN}", person=""), Removal(8, 2)])
    restored = adapter.restore(tmp_path, index.save(tmp_path), working)
    assert (restored.model_id, restored.size, restored.last_sequence) == (MODEL, 6, 8)
    for which in (
        ANY,
        Filter(person_id="anna"),
        Filter(person_id=""),
        Filter(track_id="\N{SNOWMAN}"),
        Filter(exclude_camera_ids=frozenset({"tür-ø"}), captured_from=300),
        _having(("größe", '"☃"')),
        _having(("colour", '"red"')),
    ):
        assert restored.search(query_for(4), which, 10) == index.search(query_for(4), which, 10)


def test_a_restored_index_goes_on_with_the_changes_after_it(adapter: Adapter, working: Path, tmp_path: Path) -> None:
    index = adapter.new(working)
    index.apply(GALLERY)
    restored = adapter.restore(tmp_path, index.save(tmp_path), working)
    later: list[Change] = [
        crop(5),
        crop(7, camera="hall", attributes='{"colour":"red","lane":7}'),
        Removal(8, 1),
        Removal(9, 6),
        crop(10, camera="yard"),
    ]
    for one in (index, restored):
        one.apply(later)
    assert restored.last_sequence == 10
    assert all_keys(restored) == {2, 3, 4, 5, 7, 10}
    assert all_keys(restored, _having(("colour", '"red"'))) == {2, 4, 7}
    assert restored.search(query_for(7), ANY, 10) == index.search(query_for(7), ANY, 10)


def test_an_empty_index_can_be_saved(adapter: Adapter, working: Path, tmp_path: Path) -> None:
    index = adapter.new(working)
    index.apply([crop(1), Removal(2, 1)])
    restored = adapter.restore(tmp_path, index.save(tmp_path), working)
    assert (restored.size, restored.last_sequence) == (0, 2)
    restored.apply([crop(3)])
    assert is_found(restored, 3)


def test_files_of_another_size_than_told_are_not_restored(adapter: Adapter, working: Path, tmp_path: Path) -> None:
    index = adapter.new(working)
    index.apply(GALLERY)
    state = index.save(tmp_path)
    with pytest.raises(SnapshotError):
        adapter.restore(tmp_path, replace(state, size=5), working)


@pytest.mark.parametrize("seed", range(4))
def test_filtered_searches_agree_with_brute_force_through_random_changes(index: VectorIndex, seed: int) -> None:
    rng = random.Random(seed)
    gallery: dict[int, Addition] = {}
    for change in _random_changes(rng, gallery):
        index.apply([change])
        if rng.random() < 0.25:
            _assert_exact(index, gallery, _random_filter(rng), rng)
    assert index.size == len(gallery)


def _random_changes(rng: random.Random, gallery: dict[int, Addition]) -> Iterator[Addition | Removal]:
    """150 changes, keeping `gallery` in step; phases of growth and of shrinking, and some equal embeddings."""
    for sequence in range(1, 151):
        growing = sequence % 60 < 40
        if gallery and rng.random() < (0.2 if growing else 0.8):
            key = rng.choice(list(gallery))
            del gallery[key]
            yield Removal(sequence, key)
        else:
            key = rng.choice([key for key in range(1000) if key not in gallery])
            gallery[key] = crop(
                key,
                sequence,
                embedding(rng.randrange(40)),
                camera=rng.choice(["a", "b", "c", "d"]),
                at=rng.randrange(10),
                track=rng.choice([None, "t", f"track {sequence}"]),
                person=rng.choice([None, "p", "q"]),
                attributes=_random_attributes(rng, sequence),
            )
            yield gallery[key]


def _random_attributes(rng: random.Random, sequence: int) -> str | None:
    values: dict[str, Any] = {"colour": ["red", "blue"], "lane": [1, "1", True, None], "number": [sequence, 7]}
    told = {name: rng.choice(of) for name, of in values.items() if rng.random() < 0.5}
    return json.dumps(told, sort_keys=True, separators=(",", ":")) if told else None


def _random_filter(rng: random.Random) -> Filter:
    def maybe(value: Any, otherwise: Any) -> Any:
        return value if rng.random() < 0.3 else otherwise

    return Filter(
        camera_ids=maybe(frozenset(rng.choices("abcde", k=2)), frozenset()),
        exclude_camera_ids=maybe(frozenset(rng.choices("abcde", k=1)), frozenset()),
        captured_from=maybe(rng.randrange(10), None),
        captured_to=maybe(rng.randrange(10), None),
        person_id=maybe("p", None),
        track_id=maybe("t", None),
        attributes=maybe(
            frozenset(rng.sample([("colour", '"red"'), ("lane", "1"), ("lane", "true"), ("number", "7")], k=2)),
            maybe(frozenset({("colour", '"blue"')}), frozenset()),
        ),
    )


def _passes(which: Filter, one: Addition) -> bool:
    columns = one.columns
    told = json.loads(columns.attributes or "{}")
    return (
        (not which.camera_ids or columns.camera_id in which.camera_ids)
        and columns.camera_id not in which.exclude_camera_ids
        and (which.captured_from is None or columns.captured_at >= which.captured_from)
        and (which.captured_to is None or columns.captured_at < which.captured_to)
        and which.person_id in (None, columns.person_id)
        and which.track_id in (None, columns.track_id)
        and all(
            name in told and (type(told[name]), told[name]) == (type(json.loads(value)), json.loads(value))
            for name, value in which.attributes
        )
    )


def _assert_exact(index: VectorIndex, gallery: dict[int, Addition], which: Filter, rng: random.Random) -> None:
    query = embedding(rng.randrange(80)).astype(np.float32)
    top_k = rng.choice([1, 3, 10, 200])
    survivors = [one for one in gallery.values() if _passes(which, one)]
    truth = similarities(query, survivors) if survivors else np.empty(0, np.float32)
    found = index.search(query, which, top_k)
    assert (found.compared, found.gallery_size) == (len(survivors), len(gallery))
    best = np.sort(truth)[::-1][:top_k]
    assert [hit.similarity for hit in found.hits] == pytest.approx(best.tolist(), abs=1e-5)
    by_key = {one.key: value for one, value in zip(survivors, truth, strict=True)}
    assert len({hit.key for hit in found.hits}) == len(found.hits)
    for hit in found.hits:
        assert hit.similarity == pytest.approx(by_key[hit.key], abs=1e-5)
