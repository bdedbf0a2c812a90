"""Batches of P identities with K crops each, as batch-hard triplets need."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sampler(Protocol):
    """Batch number `i` depends on the seed and on `i` alone, so a resumed run sees the same batches."""

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The indices of the crops in batch `iteration` (from 0), grouped by identity."""


class IdentitySampler:
    """Batches of P identities.

    Each epoch shuffles all identities and drops the last incomplete batch. An identity's K crops are drawn without
    replacement, or with replacement if it has fewer than K.
    """

    def __init__(self, labels: NDArray[np.int64], identities: int, crops: int, seed: int) -> None:
        """labels: `(N,)`, the identity of each crop; identities: P; crops: K.

        Raises ValueError if the labels hold fewer than P identities.
        """
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self._members) < identities:
            raise ValueError(
                f"a batch needs {identities} identities, but the data has only {len(self._members)}: "
                "lower batch.identities or batch.sources in the recipe or use more data"
            )
        self._identities = identities
        self._crops = crops
        self._seed = seed

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The `P * K` indices of batch `iteration` (from 0), the K crops of an identity in sequence."""
        batches_per_epoch = len(self._members) // self._identities
        epoch, position = divmod(iteration, batches_per_epoch)
        order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._members))
        chosen = order[position * self._identities : (position + 1) * self._identities]
        rng = np.random.default_rng((self._seed, 1, iteration))
        return np.concatenate([self._sample(self._members[i], rng) for i in chosen])

    def _sample(self, members: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.choice(members, self._crops, replace=len(members) < self._crops)


class SourcesSampler:
    """Batches with a fixed number of identities of each of several data sets, each with its own epochs.

    The identities of a batch are shuffled, so that each process's slice has identities of all data sets.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        sources: NDArray[np.int64],
        identities: Sequence[int],
        crops: int,
        seed: int,
    ) -> None:
        """labels, crops: as in IdentitySampler. sources: `(N,)`, each crop's data set, from 0. identities: P of each.

        Raises ValueError if `identities` lacks the number of a data set, or a data set has too few identities.
        """
        count = int(sources.max()) + 1
        if count != len(identities):
            raise ValueError(
                f"batch.sources of the recipe says how many identities {len(identities)} data sets give, "
                f"but the run has {count}: give as many --data"
            )
        self._rows = [np.flatnonzero(sources == source) for source in range(count)]
        self._samplers = [
            IdentitySampler(labels[rows], per_batch, crops, seed + source)
            for source, (rows, per_batch) in enumerate(zip(self._rows, identities, strict=True))
        ]
        self._crops = crops
        self._seed = seed

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The indices of batch `iteration` (from 0)."""
        pairs = zip(self._rows, self._samplers, strict=True)
        batch = np.concatenate([rows[sampler.batch(iteration)] for rows, sampler in pairs]).reshape(-1, self._crops)
        shuffled: NDArray[np.int64] = np.random.default_rng((self._seed, 2, iteration)).permutation(batch).reshape(-1)
        return shuffled
