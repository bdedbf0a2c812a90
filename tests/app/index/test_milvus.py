"""The index on Milvus beyond the contract: sharing, special characters, selective filters, rebuilds."""

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.app.index.index_factories import (
    ANY,
    MODEL,
    all_keys,
    ask,
    crop,
    embedding,
    is_found,
    keys,
    query_for,
    similarities,
)

pytest.importorskip("pymilvus", reason="the wheel pymilvus is not installed")

from app.index.milvus import MilvusIndex
from app.index.port import Addition, Filter, IndexLost, Removal, VectorIndex
from tests.app.index.milvus_factories import collections_of, drop_all_of, index_on, nothing, same_index, storage_on


@pytest.fixture
def index(milvus_lite: str) -> Iterator[VectorIndex]:
    with index_on(milvus_lite) as empty:
        yield empty


TEXTS = [
    'quoted "double"',
    "quoted 'single'",
    "back\\slash",
    "\\",
    '\\"',
    "\\n is no newline",
    "a\nnewline",
    "tab\tand\rreturn",
    "100 % _ like*?",
    "$meta {braces} [brackets]",
    "",
    "=",
    " ",
    "tür-ø \N{SNOWMAN} \N{RUNNER}",
    "\u2028\u202e\ufeff",
    "\x01\x7f",
    '" or key >= 0 or camera_id == "',
    '"] or key in [1',
    "x" * 200,
    "\N{RUNNER}" * 200,
]


@pytest.mark.parametrize("name", ["camera", "track", "person"])
def test_a_filter_finds_exactly_its_text_whatever_characters_are_in_it(index: VectorIndex, name: str) -> None:
    index.apply([crop(key, **{name: text}) for key, text in enumerate(TEXTS, 1)])  # type: ignore[arg-type]
    for key, text in enumerate(TEXTS, 1):
        crop_filter = {
            "camera": Filter(camera_ids=frozenset({text})),
            "track": Filter(track_id=text),
            "person": Filter(person_id=text),
        }[name]
        assert all_keys(index, crop_filter) == {key}, repr(text)
    if name == "camera":
        assert all_keys(index, Filter(exclude_camera_ids=frozenset(TEXTS[1:]))) == {1}


def test_no_track_or_person_is_not_an_empty_one(index: VectorIndex) -> None:
    index.apply([crop(1), crop(2, track="", person="")])
    assert all_keys(index, Filter(track_id="")) == {2}
    assert all_keys(index, Filter(person_id="")) == {2}


def test_attributes_differ_by_name_value_and_type(index: VectorIndex) -> None:
    values = ["true", "1", '"1"', '"true"', "null", "1.5", '{"a":[1,"x"]}', '["a"]', '"[\\"a\\"]"', f'"{"x" * 9000}"']
    index.apply([crop(key, attributes=f'{{"it":{value},"other":{key}}}') for key, value in enumerate(values, 1)])
    index.apply([crop(50)])
    for key, value in enumerate(values, 1):
        assert all_keys(index, Filter(attributes=frozenset({("it", value)}))) == {key}
        assert all_keys(index, Filter(attributes=frozenset({("it", value), ("other", f"{key}")}))) == {key}
    for pairs in ({("it", "1"), ("it", "true")}, {("it", "false")}, {("1", '"it"')}, {("i", '"t1"')}):
        assert all_keys(index, Filter(attributes=frozenset(pairs))) == set()


def test_a_thousand_attributes_are_kept(index: VectorIndex) -> None:
    index.apply([crop(1, attributes=json.dumps({f"a{n}": n for n in range(1000)}))])
    assert all_keys(index, Filter(attributes=frozenset({("a999", "999"), ("a0", "0")}))) == {1}


def test_more_hits_than_milvus_gives_are_an_error(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="16384"):
        ask(index, query_for(1), ANY, 16_385)


def test_all_crops_that_pass_a_selective_filter_are_found_even_if_hnsw_misses_some(index: VectorIndex) -> None:
    assert isinstance(index, MilvusIndex)
    people = 20  # of 100 crops each; the rare camera has only a few crops, all of one person

    crops = [
        crop(key, vector=_near(embedding(key % people), key), camera="rare" if key % 100 == people - 1 else "gate")
        for key in range(2000)
    ]
    rare = [addition for addition in crops if addition.columns.camera_id == "rare"]
    index.load(crops, 2000)
    index.server.client.flush(index.collection)  # it builds its HNSW then, soon
    crop_filter = Filter(camera_ids=frozenset({"rare"}))
    deadline = time.monotonic() + 60
    while len(found_by_hnsw(index, 'camera_id in ["rare"]', 20)) == 20:
        assert time.monotonic() < deadline, "the server's HNSW is not there, or misses nothing"
        time.sleep(0.1)
    found = ask(index, query_for(0), crop_filter, 20)
    expected = dict(zip((addition.key for addition in rare), similarities(query_for(0), rare), strict=True))
    assert keys(found) == sorted(expected, key=lambda key: -expected[key])
    assert found.compared == 20
    assert len(ask(index, query_for(0), ANY, 2000).keys) == 2000


def found_by_hnsw(index: MilvusIndex, passing: str, count: int) -> Any:
    """What the server alone finds near the query of seed 0."""
    parameters = {"metric_type": "IP", "params": {"ef": 256}}
    (hits,) = index.server.client.search(
        index.collection, [query_for(0)], passing, count, search_params=parameters, consistency_level="Strong"
    )
    return hits


def _near(vector: NDArray[np.float16], seed: int) -> NDArray[np.float16]:
    """An embedding close to another one."""
    near = vector.astype(np.float32) + 0.3 * embedding(seed).astype(np.float32)
    return (near / np.linalg.norm(near)).astype(np.float16)


def test_changes_of_one_process_are_visible_to_all(milvus_lite: str, index: VectorIndex) -> None:
    other = same_index(milvus_lite, index)
    index.apply([crop(1), crop(2), Removal(3, 1)])
    assert (all_keys(other), other.size, other.last_sequence) == ({2}, 1, 3)


def test_a_process_that_is_behind_restores_no_deleted_crop(milvus_lite: str, index: VectorIndex) -> None:
    slow = same_index(milvus_lite, index)
    index.apply([crop(1), crop(2), Removal(3, 1)])
    slow.apply([crop(1), crop(2)])
    slow.apply([crop(1), crop(2), Removal(3, 1), crop(4)])
    assert (all_keys(index), index.last_sequence) == ({2, 4}, 4)


def test_changes_are_applied_again_if_last_sequence_was_not_written(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(index, MilvusIndex)
    index.apply([crop(1), crop(2)])
    with monkeypatch.context() as patched:
        patched.setattr(index.server.client, "alter_collection_properties", killed)
        with pytest.raises(Killed):
            index.apply([crop(3), Removal(4, 1)])
    assert index.last_sequence == 2
    index.apply([crop(3), Removal(4, 1), crop(5)])
    assert (all_keys(index), index.size, index.last_sequence) == ({2, 3, 5}, 3, 5)


class Killed(Exception):
    """Stands for the end of a process."""


def killed(*_: object, **__: object) -> None:
    raise Killed


async def test_the_next_process_opens_the_index(milvus_lite: str) -> None:
    with storage_on(milvus_lite, "testnext") as storage:
        assert await storage.open() is None
        (await storage.rebuild(nothing)).apply([crop(1), crop(2)])
        with storage_on(milvus_lite) as of_another_gallery:
            assert await of_another_gallery.open() is None
        with storage_on(milvus_lite, "testnext2") as of_a_longer_name:
            assert await of_a_longer_name.open() is None
        index = await storage.open()
        assert index is not None
        assert (index.model_id, all_keys(index), index.last_sequence) == (MODEL, {1, 2}, 2)


async def test_the_crops_of_two_models_never_meet(milvus_lite: str) -> None:
    with (
        storage_on(milvus_lite, "testmodels") as first_storage,
        storage_on(milvus_lite, "testmodels", "other") as second_storage,
    ):
        first, second = await first_storage.rebuild(nothing), await second_storage.rebuild(nothing)
        first.apply([crop(1)])
        second.apply([crop(2)])
        assert (all_keys(first), all_keys(second)) == ({1}, {2})


async def test_a_rebuilt_index_replaces_the_former_one_for_all_processes_at_once(milvus_lite: str) -> None:
    with storage_on(milvus_lite, "testrebuilt") as storage:
        before = await storage.rebuild(nothing)
        before.apply([crop(1), crop(2)])

        async def fill(index: VectorIndex) -> None:
            index.load([crop(key) for key in range(3, 300)], 7)
            assert all_keys(before) == {1, 2}, "searches go on with the former"

        after = await storage.rebuild(fill)
        for index in (before, after):
            assert (index.size, index.last_sequence) == (297, 7)
            assert is_found(index, 299)
        assert len(collections_of(storage.server, "testrebuilt")) == 1


async def test_a_failed_rebuild_leaves_the_index_unchanged(milvus_lite: str) -> None:
    with storage_on(milvus_lite, "testfails") as storage:

        async def fail(index: VectorIndex) -> None:
            index.load([crop(3)], 1)
            raise ConnectionError("the database is gone")

        index = await storage.rebuild(nothing)
        index.apply([crop(1)])
        with pytest.raises(ConnectionError):
            await storage.rebuild(fail)
        assert all_keys(index) == {1}
        await storage.rebuild(nothing)
        assert len(collections_of(storage.server, "testfails")) == 1, "the collections of failed rebuilds are dropped"


async def test_a_collection_of_another_version_is_not_used(milvus_lite: str) -> None:
    with storage_on(milvus_lite, "testversion") as storage:
        await storage.rebuild(nothing)
        storage.server.client.alter_collection_properties(storage.alias, {"passerby.format": "0"})
        assert await storage.open() is None


async def test_a_dropped_index_is_lost(milvus_lite: str) -> None:
    with storage_on(milvus_lite, "testdropped") as storage:
        index = await storage.rebuild(nothing)
        drop_all_of(storage.server, "testdropped")
        for request in (
            lambda: index.size,
            lambda: index.last_sequence,
            lambda: ask(index, query_for(1), ANY, 1),
            lambda: index.apply([crop(1)]),
        ):
            with pytest.raises(IndexLost):
                request()


def test_rows_of_a_whole_batch_of_the_database_are_loaded(index: VectorIndex) -> None:
    rows: list[Addition] = [crop(key, vector=embedding(key % 50)) for key in range(2000)]
    index.load(rows, 9)
    assert (index.size, index.last_sequence) == (2000, 9)
