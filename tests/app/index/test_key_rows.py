"""The map from keys to row numbers."""

import random

from app.index.key_rows import KeyRows


def test_it_agrees_with_a_dictionary_through_random_changes(seed: int) -> None:
    rng = random.Random(seed)
    rows, expected = KeyRows(), dict[int, int]()
    for number in range(200):
        added = {
            key: number * 100 + place for place, key in enumerate(rng.sample(range(20_000), 60)) if key not in expected
        }
        rows.add(added, added.values())
        expected |= added
        for key in rng.sample(range(20_000), 40):
            assert (key in rows) == (key in expected)
            assert rows.pop(key) == expected.pop(key, None)
    assert {key: rows.pop(key) for key in range(20_000) if key in rows} == expected
