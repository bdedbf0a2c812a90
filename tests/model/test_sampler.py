"""Every batch is exactly P identities with K crops, and follows from its number alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sampler import IdentitySampler


@given(
    counts=st.lists(st.integers(1, 9), min_size=4, max_size=12),
    crops=st.integers(2, 5),
    seed=st.integers(0, 99),
    iteration=st.integers(0, 50),
)
def test_a_batch_is_p_times_k(counts: list[int], crops: int, seed: int, iteration: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    batch = IdentitySampler(labels, 4, crops, seed).batch(iteration)
    own = labels[batch].reshape(4, crops)
    assert (own == own[:, :1]).all()
    assert len(set(own[:, 0])) == 4
    for row in batch.reshape(4, crops):
        if counts[labels[row[0]]] >= crops:
            assert len(set(row)) == crops, "crops are repeated only where an identity has too few"


def test_a_pass_shows_every_identity_once() -> None:
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
    with pytest.raises(ValueError, match="wants 16 identities, but the data has only 3"):
        IdentitySampler(np.array([0, 1, 2]), 16, 4, seed=0)
