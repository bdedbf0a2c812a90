"""Bootstrap confidence intervals of metrics, by resampling the queries."""

import numpy as np
from numpy.typing import NDArray

from model.metrics import QueryScores

_DRAWS_A_BLOCK = 64


def confidence_intervals(
    scores: QueryScores, draws: int, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of rank1, map_step, map_trapezoid and minp, from `draws` samples of the answerable queries.

    Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13. Queries of one person are not independent, so
    the true intervals are somewhat wider. Empty if no query has a right answer.
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
    means = _drawn_means(values, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def _drawn_means(values: NDArray[np.float64], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    means = np.empty((draws, values.shape[1]))
    for start in range(0, draws, _DRAWS_A_BLOCK):
        count = min(_DRAWS_A_BLOCK, draws - start)
        chosen = rng.integers(0, len(values), (count, len(values)))
        means[start : start + count] = values[chosen].mean(axis=1)
    return means
