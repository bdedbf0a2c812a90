"""Batches of P identities with K crops each, the shape that batch-hard triplets need."""

import numpy as np
from numpy.typing import NDArray


class IdentitySampler:
    """Gives batch number `i` from the seed and `i` alone, so that a resumed run sees what it would have seen.

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
                "lower `identities_per_batch` in the recipe or use more data"
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
