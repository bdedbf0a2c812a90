"""Bootstrap confidence intervals of metrics, by resampling the queries."""

import numpy as np
from numpy.typing import NDArray

from model.metrics import QueryScores

_BLOCK_SIZE = 64


def confidence_intervals(
    scores: QueryScores, resamples: int, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (low, high) of rank1, map_step, map_trapezoid and minp over queries with a right answer.

    Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13. Queries of one person are not independent, so
    the true intervals are somewhat wider. level: the confidence. Empty if no query has a right answer.
    """
    answerable = ~np.isnan(scores.first)
    columns = {
        "rank1": (scores.first <= 1).astype(np.float64),
        "map_step": scores.step,
        "map_trapezoid": scores.trapezoid,
        "minp": scores.minp,
    }
    values = np.stack([column[answerable] for column in columns.values()], axis=1)
    if not len(values):
        return {}
    means = _resampled_means(values, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def _resampled_means(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`(resamples, columns)`: the means of random samples of the rows, with replacement."""
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, _BLOCK_SIZE):
        count = min(_BLOCK_SIZE, resamples - start)
        rows = rng.integers(0, len(values), (count, len(values)))
        means[start : start + count] = values[rows].mean(axis=1)
    return means
