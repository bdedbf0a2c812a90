"""Verification (do two crops show the same person?): error rates over all pairs, from histograms."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
"""The number of histogram bins for similarities from -1 to 1."""

_FALSE_MATCH_RATES = np.logspace(-5, 0, 51)


@dataclass(frozen=True)
class Verification:
    """Error rates over pairs of a query and a gallery crop, without pairs that rankings exclude.

    same_pairs, different_pairs: the numbers of same-person and of different-person pairs. fnmr: by false match rate
    (FMR), the false non-match rate: the share of same-person pairs below the lowest threshold at which at most the
    share FMR of the different-person pairs match; NaN for too few pairs. roc: (FMR, true match rate) points.
    """

    same_pairs: int
    different_pairs: int
    fnmr: dict[float, float]
    roc: tuple[tuple[float, float], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Why a rate of `fnmr` is not defined, if one is not."""
        undefined = [rate for rate, value in self.fnmr.items() if math.isnan(value)]
        if not undefined:
            return ()
        if not self.same_pairs:
            return ("the FNMR is not defined without a same-person pair",)
        return (
            f"the FNMR at FMR {100 * undefined[0]:g} % is not defined: it needs {math.ceil(1 / undefined[0]):,} "
            f"different-person pairs, and there are {self.different_pairs:,}",
        )


class PairCounts:
    """Histograms of the similarities of same-person and different-person pairs."""

    def __init__(self) -> None:
        self._all = np.zeros(BINS, dtype=np.int64)
        self._same: list[NDArray[np.float32]] = []
        self._excluded: list[NDArray[np.float32]] = []

    def add_block(self, similarities: NDArray[np.float32]) -> None:
        """Add all pairs of `n` queries with the gallery, `(n, G)`."""
        self._all += _histogram(similarities)

    def add_query(self, same: NDArray[np.float32], excluded: NDArray[np.float32]) -> None:
        """Mark pairs of one query, already added by `add_block`, as same-person pairs or as excluded."""
        self._same.append(same)
        self._excluded.append(excluded)

    def verification(self, rates: tuple[float, ...] = (1e-3, 1e-4)) -> Verification:
        """The error rates; `fnmr` at the false match rates `rates`."""
        none = np.empty(0, np.float32)
        same = _histogram(np.concatenate([none, *self._same]))
        different = self._all - same - _histogram(np.concatenate([none, *self._excluded]))
        # Cumulative from the highest similarity: the number of pairs at or above each bin's lower edge.
        true_matches = np.concatenate([[0], np.cumsum(same[::-1])])
        false_matches = np.concatenate([[0], np.cumsum(different[::-1])])
        same_pairs, different_pairs = int(true_matches[-1]), int(false_matches[-1])

        def true_match_rate(rate: float) -> float:
            if not same_pairs or different_pairs * rate < 1:
                return float("nan")
            edge = np.searchsorted(false_matches, rate * different_pairs, side="right") - 1
            return float(true_matches[edge] / same_pairs)

        roc = [(float(rate), true_match_rate(rate)) for rate in _FALSE_MATCH_RATES]
        return Verification(
            same_pairs,
            different_pairs,
            {rate: 1 - true_match_rate(rate) for rate in rates},
            tuple(point for point in roc if not np.isnan(point[1])),
        )


def _histogram(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    """`(BINS,)`: the number of similarities in each bin."""
    bins = ((similarities.ravel() + 1) * (BINS / 2)).astype(np.int32)
    return np.bincount(np.clip(bins, 0, BINS - 1, out=bins), minlength=BINS)
