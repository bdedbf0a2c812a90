"""Verification (do two crops show one person?): error rates over all pairs, from streamed histograms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
"""The number of histogram bins for similarities from -1 to 1."""

_ROC_POINTS = np.logspace(-5, 0, 51)


@dataclass(frozen=True)
class Verification:
    """Error rates over pairs of a query and a gallery crop, without pairs that rankings exclude.

    same_pairs, different_pairs: the numbers of pairs of one person and of two persons. fnmr: the false non-match rate
    by false match rate: the share of pairs of one person below the threshold at which at most this share of the pairs
    of two persons is at or above it; NaN for too few pairs. roc: (false match rate, true match rate) points.
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
        self._excluded: list[NDArray[np.float32]] = []

    def add_block(self, similarities: NDArray[np.float32]) -> None:
        """Add all pairs of `n` queries with the gallery, `(n, G)`."""
        self._all += _counted(similarities)

    def add_query(self, same: NDArray[np.float32], excluded: NDArray[np.float32]) -> None:
        """Mark pairs of one query, already added by `add_block`, as pairs of one person or as excluded."""
        self._same.append(same)
        self._excluded.append(excluded)

    def verification(self, rates: tuple[float, ...] = (1e-3, 1e-4)) -> Verification:
        """The error rates; `fnmr` at the false match rates `rates`."""
        same_pairs = _counted(np.concatenate(self._same))
        different = self._all - same_pairs - _counted(np.concatenate(self._excluded))
        # Cumulative from the highest similarity: the number of pairs at or above each bin's lower edge.
        matched = np.concatenate([[0], np.cumsum(same_pairs[::-1])])
        mismatched = np.concatenate([[0], np.cumsum(different[::-1])])
        same, different_pairs = int(matched[-1]), int(mismatched[-1])

        def true_match_rate(rate: float) -> float:
            if not same or different_pairs * rate < 1:
                return float("nan")
            return float(matched[np.searchsorted(mismatched, rate * different_pairs, side="right") - 1] / same)

        roc = [(float(rate), true_match_rate(rate)) for rate in _ROC_POINTS]
        return Verification(
            same,
            different_pairs,
            {rate: 1 - true_match_rate(rate) for rate in rates},
            tuple(point for point in roc if not np.isnan(point[1])),
        )


def _counted(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    bins = ((similarities.ravel() + 1) * (BINS / 2)).astype(np.int32)
    return np.bincount(np.clip(bins, 0, BINS - 1, out=bins), minlength=BINS)
