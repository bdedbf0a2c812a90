"""Weighted parts: the scaled query's dot product equals the similarity of a match."""

import random

import numpy as np
import pytest

from app.search.ranking import (
    Parts,
    join_embeddings,
    multipliers_of,
    part_similarities,
    shares_of,
    weighted,
    weighted_similarity,
)
from model.architecture import PARTS

EQUAL = np.full(8, 8**-0.5)
UNEQUAL = np.sqrt([0.3, 0.05, 0.05, 0.2, 0.1, 0.15, 0.1, 0.05])
"""The weights of the parts of a model; their squares, the shares, have the sum 1."""


def parts(seed: int, lengths: np.ndarray = EQUAL) -> Parts:
    """A random embedding `(8, 256)` whose parts have these norms."""
    drawn = np.random.default_rng(seed).standard_normal((8, 256))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * lengths[:, np.newaxis]).astype(np.float32)


def along(cosines: list[float], lengths: np.ndarray) -> tuple[Parts, Parts]:
    """Two embeddings whose parts have these cosines."""
    query, crop = np.zeros((8, 256), np.float32), np.zeros((8, 256), np.float32)
    query[:, 0] = lengths
    crop[:, 0] = lengths * np.array(cosines)
    crop[:, 1] = lengths * np.sqrt(1 - np.array(cosines) ** 2)
    return query, crop


def test_a_models_weights_set_the_shares_of_parts() -> None:
    cosines = [0.5, 0.0, -1.0, 0.8, 0.6, 0.0, 1.0, 0.2]
    query, crop = along(cosines, UNEQUAL)
    found = part_similarities(query, crop)
    assert found == pytest.approx(dict(zip(PARTS, cosines, strict=True)), abs=1e-6)
    by_hand = 0.3 * 0.5 - 0.05 + 0.2 * 0.8 + 0.1 * 0.6 + 0.1 + 0.05 * 0.2
    shares = shares_of(query, multipliers_of({}))
    assert shares.tolist() == pytest.approx((UNEQUAL**2).tolist())
    assert weighted_similarity(found, shares) == pytest.approx(by_hand, abs=1e-6)
    assert float((query * crop).sum()) == pytest.approx(by_hand, abs=1e-6)


def test_a_searchs_weights_multiply_the_models() -> None:
    query, crop = along([0.5, 0.0, -1.0, 0.8, 0.6, 0.0, 1.0, 0.2], UNEQUAL)
    shares = shares_of(query, multipliers_of({"global": 0, "upper_half": 2}))
    total = 0.05 + 0.05 + 2 * 0.2 + 0.1 + 0.15 + 0.1 + 0.05
    assert shares.tolist() == pytest.approx([0, *(np.array([0.05, 0.05, 0.4, 0.1, 0.15, 0.1, 0.05]) / total)])
    by_hand = (-0.05 + 0.4 * 0.8 + 0.1 * 0.6 + 0.1 + 0.05 * 0.2) / total
    assert weighted_similarity(part_similarities(query, crop), shares) == pytest.approx(by_hand, abs=1e-6)
    assert float((weighted(query, shares) * crop).sum()) == pytest.approx(by_hand, abs=1e-6)


def test_parts_without_an_entry_have_the_multiplier_one() -> None:
    assert multipliers_of({}).tolist() == [1] * 8
    assert multipliers_of({"upper_half": 2, "lower_half": 0}).tolist() == [0.5] * 3 + [1, 0] + [0.5] * 3


def test_only_the_ratios_of_weights_count() -> None:
    for factor in (1e-300, 3, 1e300):
        assert multipliers_of(dict.fromkeys(PARTS, factor)).tolist() == [1] * 8
    huge = shares_of(parts(1), multipliers_of({"global": 1.7e308, "top_third": 1.7e308}))
    assert huge[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL])
def test_a_search_without_weights_leaves_a_query_as_it_is(lengths: np.ndarray) -> None:
    query = parts(1, lengths)
    assert weighted(query, shares_of(query, multipliers_of({}))) == pytest.approx(query, abs=1e-7)


@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL])
def test_a_weighted_querys_dot_product_is_the_mean_of_the_parts_cosines_by_their_shares(
    lengths: np.ndarray, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        named = {part: rng.choice([0, 1, 2.5, rng.random()]) for part in rng.sample(PARTS, rng.randrange(8))}
        query = parts(rng.randrange(1000), lengths)
        stored = parts(rng.randrange(1000, 2000), lengths).astype(np.float16)  # other seeds: an equal one is clipped
        crop = stored.astype(np.float32)
        shares = shares_of(query, multipliers_of(named))
        cosines = part_similarities(query, crop)
        similarity = weighted_similarity(cosines, shares)
        counts = np.array([named.get(part, 1) for part in PARTS]) * lengths**2
        assert similarity == pytest.approx(np.average(list(cosines.values()), weights=counts), abs=1e-6)
        assert similarity == pytest.approx(float((weighted(query, shares) * crop).sum(dtype=np.float64)), abs=2e-6)


@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL])
def test_equal_embeddings_have_similarity_one_with_any_weights(lengths: np.ndarray) -> None:
    query = parts(3, lengths)
    shares = shares_of(query, multipliers_of({"global": 9, "top_third": 0, "lower_half": 0.3}))
    assert weighted_similarity(part_similarities(query, query), shares) == pytest.approx(1, abs=1e-6)


def test_several_pictures_are_joined_to_the_rescaled_mean_of_each_part() -> None:
    one, other = along([0.6] * 8, UNEQUAL)
    joined = join_embeddings([one, other])
    assert np.linalg.norm(joined, axis=1) == pytest.approx(UNEQUAL, abs=1e-6)
    assert list(part_similarities(joined, one).values()) == pytest.approx([np.sqrt(0.8)] * 8, abs=1e-6)
    assert list(part_similarities(joined, other).values()) == pytest.approx([np.sqrt(0.8)] * 8, abs=1e-6)
    assert join_embeddings([one]) == pytest.approx(one, abs=1e-7)


def test_a_part_that_pictures_cancel_out_has_no_share() -> None:
    one, other = along([-1.0] + [1.0] * 7, UNEQUAL)
    joined = join_embeddings([one, other])
    cosines = part_similarities(joined, one)
    assert list(cosines.values()) == pytest.approx([0] + [1] * 7, abs=1e-6)
    shares = shares_of(joined, multipliers_of({}))
    assert weighted_similarity(cosines, shares) == pytest.approx(1, abs=1e-6)
    assert np.isfinite(weighted(joined, shares)).all()


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ({"legs": 1}, "there is no part legs; the parts are global,"),
        ({"global": -1}, "0 or more"),
        ({"global": float("inf")}, "finite"),
        ({"global": float("nan")}, "finite"),
        (dict.fromkeys(PARTS, 0), "all weights are 0"),
    ],
)
def test_invalid_weights_are_refused(named: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        multipliers_of(named)
