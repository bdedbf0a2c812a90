"""A subset of a data set's identities, for quick comparisons."""

from collections.abc import Sequence

import numpy as np

from model.datasets.base import Sample
from model.errors import DataError


def select_identities(samples: Sequence[Sample], identities: int, seed: int = 0) -> tuple[Sample, ...]:
    """All crops of `identities` random persons. Raises DataError if there are fewer."""
    persons = sorted({sample.pid for sample in samples})
    if identities > len(persons):
        raise DataError(f"cannot train on {identities} identities: the data has {len(persons)}")
    chosen = {persons[i] for i in np.random.default_rng(seed).permutation(len(persons))[:identities]}
    return tuple(sample for sample in samples if sample.pid in chosen)
