"""Every batch has exactly P identities with K crops, and depends on its number only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sampler import IdentitySampler, SourcesSampler


@given(
    counts=st.lists(st.integers(1, 9), min_size=4, max_size=12),
    crops=st.integers(2, 5),
    seed=st.integers(0, 99),
    iteration=st.integers(0, 50),
)
def test_a_batch_has_p_identities_with_k_crops(counts: list[int], crops: int, seed: int, iteration: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    batch = IdentitySampler(labels, 4, crops, seed).batch(iteration)
    own = labels[batch].reshape(4, crops)
    assert (own == own[:, :1]).all()
    assert len(set(own[:, 0])) == 4
    for row in batch.reshape(4, crops):
        if counts[labels[row[0]]] >= crops:
            assert len(set(row)) == crops, "crops are repeated only where an identity has too few"


def test_an_epoch_contains_every_identity_once() -> None:
    labels = np.repeat(np.arange(12), 3)
    sampler = IdentitySampler(labels, 4, 2, seed=0)
    seen = np.concatenate([np.unique(labels[sampler.batch(i)]) for i in range(3)])
    assert sorted(seen) == list(range(12))


def test_a_batch_does_not_depend_on_those_before() -> None:
    labels = np.repeat(np.arange(12), 3)
    first, second = (IdentitySampler(labels, 4, 2, seed=3) for _ in range(2))
    for i in range(7):
        first.batch(i)
    assert (first.batch(7) == second.batch(7)).all()


def test_too_few_identities_are_an_error() -> None:
    with pytest.raises(ValueError, match="a batch needs 16 identities, but the data has only 3"):
        IdentitySampler(np.array([0, 1, 2]), 16, 4, seed=0)


def test_each_source_gives_its_share_of_every_batch() -> None:
    labels, sources = np.repeat(np.arange(10), 3), np.repeat([0] * 7 + [1] * 3, 3)
    sampler = SourcesSampler(labels, sources, (3, 2), 2, seed=0)
    for number in range(20):
        batch = sampler.batch(number)
        own = labels[batch].reshape(5, 2)
        assert (own == own[:, :1]).all()
        assert np.bincount(sources[batch]).tolist() == [6, 4]
        assert len(set(own[:, 0])) == 5
    seen = {label for number in range(20) for label in labels[sampler.batch(number)]}
    assert seen == set(range(10))


def test_sources_for_missing_data_sets_are_an_error() -> None:
    labels, sources = np.repeat(np.arange(10), 3), np.zeros(30, dtype=np.int64)
    with pytest.raises(ValueError, match="2 data sets give, but the run has 1"):
        SourcesSampler(labels, sources, (3, 2), 2, seed=0)
