"""Canonical JSON: values have equal texts exactly if they are equal."""

import itertools
import json
import math
import random

import pytest

from app.kit.canonical import canonical_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9007199254740992.0"),
        (1e300, "1e+300"),
        (0.1, "0.1"),
        (True, "true"),
        (None, "null"),
        ('grün \x00\n"', '"grün \\u0000\\n\\""'),
        ({"b": [1.0, {"d": 2, "c": 3.0}], "a": ""}, '{"a":"","b":[1,{"c":3,"d":2}]}'),
    ],
)
def test_the_text_of_a_value(value: object, text: str) -> None:
    assert canonical_json(value) == text
    assert canonical_json(json.loads(text)) == text


def test_values_of_different_types_have_different_texts() -> None:
    values = [0, False, "0", "false", "", None, "null", [], {}, [0], {"0": 0}, 0.5, "0.5"]
    for one, other in itertools.combinations(values, 2):
        assert canonical_json(one) != canonical_json(other), (one, other)


def test_numbers_have_one_text_if_and_only_if_they_are_equal(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(2000):
        one = rng.choice([rng.randrange(-9, 9), rng.random(), float(rng.randrange(-9, 9)), rng.uniform(-1e15, 1e15)])
        other = rng.choice([one, float(one), math.floor(one), math.nextafter(one, math.inf)])
        assert (canonical_json(one) == canonical_json(other)) == (one == other), (one, other)


def test_values_outside_json_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)
