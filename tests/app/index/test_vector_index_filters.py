"""The contract of every adapter for searches with filters."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.index.port import Addition, Filter, Removal, VectorIndex
from tests.app.index.index_factories import GALLERY, ask, crop, embedding, having, keys, query_for, similarities


@pytest.mark.parametrize(
    ("crop_filter", "expected"),
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
        (having(("colour", '"red"')), {1, 2, 4}),
        (having(("colour", '"red"'), ("bag", "true")), {1}),
        (having(("bag", "1")), {4}),
        (having(("lane", "1")), {1}),
        (having(("lane", '"1"')), {2}),
        (having(("seen", '{"lane":1}')), {3}),
        (having(("colour", '"red"'), ("colour", '"reddish"')), set()),
        (having(("colour", "null")), set()),
        (having(("größe", '"☃"')), {4}),
        (having(("unheard-of", '"red"')), set()),
        (replace(having(("colour", '"red"')), camera_ids=frozenset({"gate"}), captured_from=200), {2}),
    ],
)
def test_a_search_finds_only_crops_that_pass_the_filter(
    index: VectorIndex, crop_filter: Filter, expected: set[int]
) -> None:
    index.apply(GALLERY)
    found = ask(index, query_for(1), crop_filter, 100)
    assert set(keys(found)) == expected
    assert (found.compared, found.gallery_size) == (len(expected), 6)
    assert (np.diff(found.similarities) <= 0).all()


def test_a_filter_never_costs_matches_while_more_exist(index: VectorIndex) -> None:
    near = [crop(key, vector=embedding(1), camera="gate") for key in range(1, 30)]
    far = [crop(key, camera="hall") for key in range(30, 40)]
    index.apply(near + far)
    assert set(keys(ask(index, query_for(1), Filter(camera_ids=frozenset({"hall"})), 10))) == set(range(30, 40))


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
    """150 changes, also applied to `gallery`; it grows and shrinks, fields change, and some embeddings are equal."""

    for sequence in range(1, 151):
        growing = sequence % 60 < 40
        if gallery and rng.random() < (0.2 if growing else 0.8):
            key = rng.choice(list(gallery))
            del gallery[key]
            yield Removal(sequence, key)
        else:
            changed = gallery[rng.choice(list(gallery))] if gallery and rng.random() < 0.2 else None
            key = changed.key if changed else rng.choice([key for key in range(1000) if key not in gallery])
            gallery[key] = crop(
                key,
                sequence,
                changed.embedding if changed else embedding(rng.randrange(40)),
                camera=rng.choice(["a", "b", "c", "d"]),
                at=rng.randrange(10),
                track=rng.choice([None, "t", f"track {sequence}"]),
                person=rng.choice([None, "p", "q"]),
                attributes=_random_attributes(rng, sequence),
            )
            yield gallery[key]


def _random_attributes(rng: random.Random, sequence: int) -> str | None:
    values: dict[str, Any] = {"colour": ["red", "blue"], "lane": [1, "1", True, None], "number": [sequence, 7]}
    attributes = {name: rng.choice(of) for name, of in values.items() if rng.random() < 0.5}
    return json.dumps(attributes, sort_keys=True, separators=(",", ":")) if attributes else None


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


def _passes(crop_filter: Filter, addition: Addition) -> bool:
    columns = addition.columns
    attributes = json.loads(columns.attributes or "{}")
    return (
        (not crop_filter.camera_ids or columns.camera_id in crop_filter.camera_ids)
        and columns.camera_id not in crop_filter.exclude_camera_ids
        and (crop_filter.captured_from is None or columns.captured_at >= crop_filter.captured_from)
        and (crop_filter.captured_to is None or columns.captured_at < crop_filter.captured_to)
        and crop_filter.person_id in (None, columns.person_id)
        and crop_filter.track_id in (None, columns.track_id)
        and all(
            name in attributes
            and (type(attributes[name]), attributes[name]) == (type(json.loads(value)), json.loads(value))
            for name, value in crop_filter.attributes
        )
    )


def _assert_exact(index: VectorIndex, gallery: dict[int, Addition], crop_filter: Filter, rng: random.Random) -> None:
    query = embedding(rng.randrange(80)).astype(np.float32)
    top_k = rng.choice([1, 3, 10, 200])
    survivors = [addition for addition in gallery.values() if _passes(crop_filter, addition)]
    truth = similarities(query, survivors) if survivors else np.empty(0, np.float32)
    found = ask(index, query, crop_filter, top_k)
    assert (found.compared, found.gallery_size) == (len(survivors), len(gallery))
    assert len(set(keys(found))) == len(found.keys) >= min(top_k, len(survivors))
    by_key = {addition.key: value for addition, value in zip(survivors, truth.tolist(), strict=True)}
    best = sorted((by_key[key] for key in keys(found)), reverse=True)[:top_k]
    assert best == pytest.approx(np.sort(truth)[::-1][:top_k].tolist(), abs=1e-5)
