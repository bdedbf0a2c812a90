"""The map from keys to rows."""

import random

import numpy as np

from app.index.key_rows import KeyRows


def test_it_behaves_like_a_dictionary(seed: int) -> None:

    rng = random.Random(seed)
    rows, expected = KeyRows(), dict[int, int]()
    for _ in range(30):
        new = [key for key in rng.sample(range(500), rng.randrange(40)) if key not in expected]
        places = rng.sample(range(10_000), len(new))
        rows = rows.with_more(np.array(new, np.int64), np.array(places, np.int64))
        expected |= dict(zip(new, places, strict=True))
        for key in rng.sample(range(500), 30):
            assert rows.pop(key) == expected.pop(key, None)
            assert rows.pop(key) is None
        for key in range(-1, 501):
            assert rows.get(key) == expected.get(key)
            assert (key in rows) == (key in expected)
