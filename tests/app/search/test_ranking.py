"""Weighted parts: the query's scaling and the similarity that is told are the same arithmetic."""

import random

import numpy as np
import pytest

from app.search.ranking import Parts, part_similarities, weighted, weighted_similarity, weights_of
from model.architecture import PARTS


def parts(seed: int) -> Parts:
    """A random embedding `(8, 256)`."""
    drawn = np.random.default_rng(seed).standard_normal((8, 256))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True) / np.sqrt(8)).astype(np.float32)


def test_parts_that_are_not_named_weigh_one() -> None:
    assert weights_of({}).tolist() == [1 / 8] * 8
    assert weights_of({"upper_half": 2, "lower_half": 0}).tolist() == pytest.approx(
        [1 / 8] * 3 + [2 / 8, 0] + [1 / 8] * 3
    )


def test_only_the_ratios_of_weights_count() -> None:
    for factor in (1e-300, 3, 1e300):
        assert weights_of(dict.fromkeys(PARTS, factor)).tolist() == [1 / 8] * 8
    assert weights_of({"global": 1.7e308, "top_third": 1.7e308})[0] == pytest.approx(1 / 2)


def test_equal_weights_leave_a_query_as_it_is() -> None:
    assert (weighted(parts(1), weights_of({})) == parts(1)).all()


def test_a_weighted_querys_dot_product_is_the_weighted_mean_of_the_parts_cosines() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        named = {part: rng.choice([0, 1, 2.5, rng.random()]) for part in rng.sample(PARTS, rng.randrange(8))}
        query, crop = parts(rng.randrange(1000)), parts(rng.randrange(1000))
        weights = weights_of(named)
        cosines = part_similarities(query, crop)
        told = weighted_similarity(cosines, weights)
        each = [named.get(part, 1) for part in PARTS]
        assert told == pytest.approx(np.average(list(cosines.values()), weights=each), abs=1e-6)
        assert told == pytest.approx(float(weighted(query, weights).reshape(-1) @ crop.reshape(-1)), abs=1e-5)


def test_the_same_embedding_has_the_similarity_one_whatever_the_weights() -> None:
    weights = weights_of({"global": 9, "top_third": 0, "lower_half": 0.3})
    assert weighted_similarity(part_similarities(parts(3), parts(3)), weights) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ({"legs": 1}, "there is no part legs; the parts are global,"),
        ({"global": -1}, "0 or more"),
        ({"global": float("inf")}, "finite"),
        ({"global": float("nan")}, "finite"),
        (dict.fromkeys(PARTS, 0), "nothing is left to compare"),
    ],
)
def test_weights_that_mean_nothing_are_refused(named: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        weights_of(named)
