"""Batches of P identities with K crops each, the shape that batch-hard triplets need."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sampler(Protocol):
    """Gives batch number `i` from the seed and `i` alone, so that a resumed run sees what it would have seen."""

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The indices of the crops of batch number `iteration` (from 0), an identity's side by side."""


class IdentitySampler:
    """Batches of P identities.

    Identities come in shuffled passes over all of them (what a pass leaves over beyond whole batches waits for the next
    shuffle); an identity's K crops are drawn without replacement, or with it where it has fewer than K.
    """

    def __init__(self, labels: NDArray[np.int64], identities: int, crops: int, seed: int) -> None:
        """labels: `(N,)`, the identity of each crop; identities: P; crops: K.

        Raises ValueError if the labels hold fewer than P identities.
        """
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self._members) < identities:
            raise ValueError(
                f"a batch wants {identities} identities, but the data has only {len(self._members)}: "
                "lower batch.identities or batch.sources in the recipe or use more data"
            )
        self._identities = identities
        self._crops = crops
        self._seed = seed

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The `P * K` indices of batch number `iteration` (from 0), the K crops of an identity side by side."""
        batches_a_pass = len(self._members) // self._identities
        number, position = divmod(iteration, batches_a_pass)
        order = np.random.default_rng((self._seed, 0, number)).permutation(len(self._members))
        chosen = order[position * self._identities : (position + 1) * self._identities]
        rng = np.random.default_rng((self._seed, 1, iteration))
        return np.concatenate([self._draw(self._members[i], rng) for i in chosen])

    def _draw(self, members: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.choice(members, self._crops, replace=len(members) < self._crops)


class SourcesSampler:
    """Batches that hold so many identities of each of several data sets, mixed, each in passes of its own.

    Mixed, because processes that share a batch take stretches of it, and each should see all data sets.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        sources: NDArray[np.int64],
        identities: Sequence[int],
        crops: int,
        seed: int,
    ) -> None:
        """sources: `(N,)`, the data set of each crop, from 0; identities: how many of each data set.

        Raises ValueError if these are not as many as there are data sets, or one has too few identities.
        """
        count = int(sources.max()) + 1
        if count != len(identities):
            raise ValueError(
                f"batch.sources of the recipe says how many identities {len(identities)} data sets give, "
                f"but the run has {count}: give as many --data"
            )
        self._rows = [np.flatnonzero(sources == source) for source in range(count)]
        self._samplers = [
            IdentitySampler(labels[rows], own, crops, seed + source)
            for source, (rows, own) in enumerate(zip(self._rows, identities, strict=True))
        ]
        self._crops = crops
        self._seed = seed

    def batch(self, iteration: int) -> NDArray[np.int64]:
        """The indices of batch number `iteration` (from 0)."""
        pairs = zip(self._rows, self._samplers, strict=True)
        batch = np.concatenate([rows[sampler.batch(iteration)] for rows, sampler in pairs]).reshape(-1, self._crops)
        mixed: NDArray[np.int64] = np.random.default_rng((self._seed, 2, iteration)).permutation(batch).reshape(-1)
        return mixed
