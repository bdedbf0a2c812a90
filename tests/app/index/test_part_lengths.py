"""The part lengths of a gallery, and how far a query's part weights differ from them."""

import numpy as np
import pytest

from app.index.part_lengths import evenness, median_part_lengths

UNEQUAL = np.sqrt([0.3, 0.05, 0.05, 0.2, 0.1, 0.15, 0.1, 0.05])


def embeddings(count: int, lengths: np.ndarray) -> np.ndarray:
    """Random embeddings `(count, 2048)` whose parts have these lengths."""
    drawn = np.random.default_rng(0).standard_normal((count, 8, 256))
    drawn *= lengths[:, np.newaxis] / np.linalg.norm(drawn, axis=2, keepdims=True)
    return drawn.reshape(count, 2048).astype(np.float16)


def scaled(query: np.ndarray, *factors: float) -> np.ndarray:
    """A query with each part multiplied by its factor."""
    return (query.reshape(8, 256) * np.array(factors)[:, np.newaxis]).reshape(-1).astype(np.float32)


def test_a_few_damaged_embeddings_do_not_change_the_lengths() -> None:
    damaged = embeddings(9, UNEQUAL)
    damaged[0, 5], damaged[1, 5], damaged[2] = np.nan, np.inf, 0
    damaged[3] = damaged[3, ::-1]
    assert median_part_lengths(damaged) == pytest.approx(UNEQUAL, abs=1e-3)


@pytest.mark.parametrize("count", [0, 3])
def test_without_a_valid_embedding_lengths_are_equal(count: int) -> None:
    assert median_part_lengths(np.zeros((count, 2048), np.float16)) == pytest.approx(8**-0.5)


@pytest.mark.parametrize("lengths", [np.full(8, 8**-0.5), UNEQUAL])
def test_a_query_with_the_gallerys_part_lengths_is_even(lengths: np.ndarray) -> None:
    (query,) = embeddings(1, lengths)
    both = np.stack([query.astype(np.float32), scaled(query, *[7.0] * 8)])
    assert evenness(both, lengths).tolist() == [1, 1]


@pytest.mark.parametrize("lengths", [np.full(8, 8**-0.5), UNEQUAL])
def test_the_evenness_of_a_single_part_is_its_share(lengths: np.ndarray) -> None:
    (query,) = embeddings(1, lengths)
    single = np.stack([scaled(query, *only) for only in np.eye(8)])
    assert evenness(single, lengths) == pytest.approx(lengths**2, rel=1e-3)


def test_a_weighted_query_is_less_even() -> None:
    (query,) = embeddings(1, UNEQUAL)
    counts = np.array([2, 1, 1, 0, 1, 1, 1, 1])
    by_hand = (UNEQUAL**2 @ counts) ** 2 / (UNEQUAL**2 @ counts**2)
    assert evenness(scaled(query, *counts)[None], UNEQUAL) == pytest.approx(by_hand, rel=1e-3)


def test_a_query_of_zeros_is_even() -> None:
    assert evenness(np.zeros((1, 2048), np.float32), UNEQUAL) == 1
