"""Searches and lists that are restricted to crops with attributes."""

import json
import random
from typing import Any

import httpx
import pytest

from tests.app.running import embed, jpeg, search, stored

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "none": {},
    "red": {"colour": "red"},
    "Red": {"colour": "Red"},
    "reddish": {"colour": "reddish", "lane": 12},
    "nested": {"seen": {"colour": "red", "lane": 1}, "lane": [1, 2.0]},
    "one": {"lane": 1, "colour": "blue"},
    "one as float": {"colour": "blue", "lane": 1.0},
    "one as text": {"lane": "1"},
    "true": {"lane": True},
    "null": {"lane": None},
    "fraction": {"lane": 0.1},
    "quoted": {"note": 'x", "colour": "red', 'a"b\\': "\n", "größe": "100%_☃"},
    "nul": {"note": "\x00", "\x00": "\x00", "colour": "red"},
    "large": {"lane": 10**30, "colour": "red"},
}


@pytest.fixture
def attributed(client: httpx.Client) -> dict[str, str]:
    """A crop for each of ATTRIBUTES."""
    crops = {}
    for seed, (name, attributes) in enumerate(ATTRIBUTES.items()):
        (crop,) = stored(client, seed, attributes=json.dumps(attributes))
        assert crop["attributes"] == attributes
        crops[name] = crop["id"]
    return crops


def test_searches_and_lists_can_be_restricted_to_crops_with_attributes(
    client: httpx.Client, attributed: dict[str, str]
) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set(ATTRIBUTES)),
        ({"colour": "red"}, {"red", "nul", "large"}),
        ({"colour": "re"}, set()),
        ({"colour": "blue", "lane": 1}, {"one", "one as float"}),
        ({"lane": 1.0}, {"one", "one as float"}),
        ({"lane": "1"}, {"one as text"}),
        ({"lane": True}, {"true"}),
        ({"lane": None}, {"null"}),
        ({"lane": 0.1}, {"fraction"}),
        ({"lane": 10**30}, {"large"}),
        ({"lane": 10**30 + 1}, set()),
        ({"lane": [1.0, 2]}, {"nested"}),
        ({"lane": [2, 1]}, set()),
        ({"seen": {"lane": 1, "colour": "red"}}, {"nested"}),
        ({"seen": {"lane": 1}}, set()),
        ({'a"b\\': "\n", "größe": "100%_☃"}, {"quoted"}),
        ({"größe": "100%__"}, set()),
        ({"\x00": "\x00"}, {"nul"}),
        ({"": ""}, set()),
    ]
    for attributes, expected in cases:
        which = {"attributes": json.dumps(attributes)}
        answer = search(client, jpeg(1), **which).json()
        listed = client.get("/crops", params=which).json()["items"]
        ids = {attributed[name] for name in expected}
        assert {match["crop"]["id"] for match in answer["matches"]} == ids, attributes
        assert {crop["id"] for crop in listed} == ids, attributes
        assert answer["compared"] == len(expected)
        assert answer["filters"]["attributes"] == attributes
        assert client.get(f"/searches/{answer['search_id']}").json() == answer


def test_attributes_of_any_kind_pass_in_searches_as_in_lists(client: httpx.Client, seed: int) -> None:
    rng = random.Random(seed)
    values = [*range(3), *(float(number) for number in range(3)), rng.uniform(-9, 9), rng.uniform(0, 1e30), 2**60]
    values += [True, False, None, "", "1", "a", "A", "ä", 'a"', "a\\", "\u2028", "\x7f", [1], [1.0], {"a": 1}, {}]
    names = ["a", "A", "a b", 'a":1', "", "$", "[0]", "0"]

    def random_attributes() -> str:
        return json.dumps({name: rng.choice(values) for name in rng.sample(names, rng.randrange(1, 5))})

    items = [{"attributes": json.loads(random_attributes())} for _ in range(60)]
    crops = embed(client, *(jpeg(number) for number in range(60)), items=json.dumps(items)).json()["items"]
    assert {crop["status"] for crop in crops} == {"created"}
    for _ in range(40):
        name = rng.choice(names)
        value = rng.choice(values)
        which = {"attributes": json.dumps({name: value})}
        matches = search(client, jpeg(1), top_k=100, **which).json()["matches"]
        listed = client.get("/crops", params={"limit": 100, **which}).json()["items"]
        expected = {
            crop["crop"]["id"]
            for crop in crops
            if name in (has := crop["crop"]["attributes"]) and same(has[name], value)
        }
        assert {match["crop"]["id"] for match in matches} == {crop["id"] for crop in listed} == expected, which


def same(one: Any, other: Any) -> bool:
    """Whether two values without booleans inside are the same JSON value."""
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


@pytest.mark.parametrize("wrong", ["red", "[1]", '"colour"', "{", '{"a": NaN}', json.dumps({"a": "x" * 20_000})])
def test_attributes_that_no_crop_can_have_are_an_error(client: httpx.Client, wrong: str) -> None:
    for answer in (search(client, jpeg(1), attributes=wrong), client.get("/crops", params={"attributes": wrong})):
        assert (answer.status_code, answer.json()["where"]) == (422, "attributes")
        assert answer.json()["detail"].startswith("attributes: must ")
