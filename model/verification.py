"""Verification, whether two crops show one person: error rates over all pairs, counted as they stream by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
"""Similarities are counted in so many steps from -1 to 1."""

_ROC_POINTS = np.logspace(-5, 0, 51)


@dataclass(frozen=True)
class Verification:
    """Error rates over pairs of a query and a gallery crop, without those that rankings leave out.

    same_pairs, different_pairs: how many pairs show one person, and two. fnmr: by false match rate, the share of pairs
    of one person whose similarity is below the threshold at which at most so many pairs of two persons are at or above
    it; NaN where there are too few pairs to tell. roc: false match rates with the true match rate at each.
    """

    same_pairs: int
    different_pairs: int
    fnmr: dict[float, float]
    roc: tuple[tuple[float, float], ...]


class PairCounts:
    """Histograms of the similarities of pairs of one person and of two."""

    def __init__(self) -> None:
        self._all = np.zeros(BINS, dtype=np.int64)
        self._same: list[NDArray[np.float32]] = []
        self._left_out: list[NDArray[np.float32]] = []

    def put_block(self, similarities: NDArray[np.float32]) -> None:
        """All pairs of some queries with the whole gallery, `(n, G)`."""
        self._all += _counted(similarities)

    def put_query(self, same: NDArray[np.float32], left_out: NDArray[np.float32]) -> None:
        """Which of these, of one query, were of one person, and which do not count."""
        self._same.append(same)
        self._left_out.append(left_out)

    def verification(self, rates: tuple[float, ...] = (1e-3, 1e-4)) -> Verification:
        """The error rates at some false match rates."""
        same_pairs = _counted(np.concatenate(self._same))
        different = self._all - same_pairs - _counted(np.concatenate(self._left_out))
        # From the highest similarity down: how many pairs are at or above each step's lower edge.
        matched = np.concatenate([[0], np.cumsum(same_pairs[::-1])])
        falsely = np.concatenate([[0], np.cumsum(different[::-1])])
        same, others = int(matched[-1]), int(falsely[-1])

        def true_match_rate(rate: float) -> float:
            if not same or others * rate < 1:
                return float("nan")
            return float(matched[np.searchsorted(falsely, rate * others, side="right") - 1] / same)

        roc = [(float(rate), true_match_rate(rate)) for rate in _ROC_POINTS]
        return Verification(
            same,
            others,
            {rate: 1 - true_match_rate(rate) for rate in rates},
            tuple(point for point in roc if not np.isnan(point[1])),
        )


def _counted(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    steps = ((similarities.ravel() + 1) * (BINS / 2)).astype(np.int32)
    return np.bincount(np.clip(steps, 0, BINS - 1, out=steps), minlength=BINS)
