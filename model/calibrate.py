"""Finding a map from similarity to probability on some held-out persons, and judging it on the others."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.calibration import BALANCED, Calibration, IsotonicMap, LogisticMap, at_prior
from model.datasets.base import DISTRACTOR, JUNK, NO_CAMERA
from model.errors import DataError
from model.evaluate import LabelledFeatures
from model.metrics import cosine_blocks

Kind = Literal["isotonic", "logistic"]
Floats = NDArray[np.float64]

MOST_DIFFERENT_PAIRS = 2_000_000
"""About so many pairs of two persons are kept, drawn at random; pairs of one person are all kept."""

BINS = 10
"""Bins of equal width in which probabilities are compared with shares."""

_DIGITS = 8


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query crop and a gallery crop, not known to be of one camera: `(N,)` each.

    similarities: their cosines. same: whether they show one person. persons: the query's person.
    natural_prior: the share of pairs of one person before any were left out.
    """

    similarities: Floats
    same: NDArray[np.bool_]
    persons: NDArray[np.int64]
    natural_prior: float

    def weights(self, prior: float = BALANCED) -> Floats:
        """`(N,)`, adding up to 1: pairs of one person weigh `prior` together, the others the rest."""
        share = self.same.mean()
        each = np.where(self.same, prior / max(share, 1e-12), (1 - prior) / max(1 - share, 1e-12))
        return np.asarray(each / len(self.same))


@dataclass(frozen=True)
class Reliability:
    """Probabilities against what came true, in bins of equal width; empty bins are left out: `(B,)` each.

    predicted: mean probability. observed: share of pairs of one person; low, high: its 95 % interval, from drawing the
    query persons anew. weight: the bin's share of all pairs.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    weight: Floats

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance of probability and share over all pairs (Naeini et al., AAAI 2015)."""
        return float(np.sum(self.weight * np.abs(self.predicted - self.observed)))


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration, with the pairs that judged it and what they say: at the balanced prior and at their own."""

    calibration: Calibration
    pairs: Pairs
    balanced: Reliability
    natural: Reliability


def calibrate(
    query: LabelledFeatures, gallery: LabelledFeatures, data: str, kind: Kind = "isotonic", seed: int = 0
) -> CalibrationResult:
    """Fit a map on half of the persons, drawn by the seed, and judge it on the other half.

    data: the data set's name. Raises DataError where a half has no pair of one person, or none of two.
    """
    fitting, judging, persons = _halves(query, gallery, seed)
    for pairs in (fitting, judging):
        if not pairs.same.any() or pairs.same.all():
            raise DataError(
                f"{data} has too few persons to calibrate on: each half of them must give pairs of one person and of "
                "two, seen by different cameras"
            )
    found = fit_isotonic(fitting) if kind == "isotonic" else fit_logistic(fitting)
    probabilities = found(judging.similarities)
    balanced = reliability(probabilities, judging, BALANCED, seed)
    calibration = Calibration(
        map=found,
        data=data,
        fitted_identities=persons[0],
        judged_identities=persons[1],
        same_pairs=int(fitting.same.sum()),
        different_pairs=int((~fitting.same).sum()),
        natural_prior=fitting.natural_prior,
        expected_calibration_error=round(balanced.expected_calibration_error, 6),
    )
    own = judging.natural_prior
    natural = reliability(at_prior(probabilities, BALANCED, own), judging, own, seed)
    return CalibrationResult(calibration, judging, balanced, natural)


def fit_isotonic(pairs: Pairs) -> IsotonicMap:
    """The rising line that fits best at the balanced prior.

    One pair of two persons is added at the highest similarity, and one of one person at the lowest: however far apart
    the two kinds lie, finitely many pairs make nothing certain (the rule of succession).
    """
    from sklearn.isotonic import IsotonicRegression

    weights = pairs.weights()
    line = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    line.fit(
        np.append(pairs.similarities, [pairs.similarities.min(), pairs.similarities.max()]),
        np.append(pairs.same, [True, False]).astype(np.float64),
        sample_weight=np.append(weights, [weights[pairs.same][0], weights[~pairs.same][0]]),
    )
    similarities, first = np.unique(line.X_thresholds_.round(_DIGITS), return_index=True)
    probabilities = np.maximum.accumulate(line.y_thresholds_[first].round(_DIGITS))
    return IsotonicMap(similarities=tuple(similarities.tolist()), probabilities=tuple(probabilities.tolist()))


def fit_logistic(pairs: Pairs) -> LogisticMap:
    """The logistic curve that fits best at the balanced prior. Raises DataError where similarity says nothing."""
    from sklearn.linear_model import LogisticRegression

    # Sums of weights scale the fit against its (nearly absent) penalty: one a pair on average, as without weights.
    curve = LogisticRegression(C=1e6, max_iter=1000)
    curve.fit(pairs.similarities[:, None], pairs.same, sample_weight=pairs.weights() * len(pairs.same))
    slope = float(curve.coef_[0, 0])
    if slope <= 0:
        raise DataError(
            f"pairs of one person are no more similar than pairs of two (slope {slope:.3g}): this checkpoint cannot be "
            "calibrated on this data"
        )
    return LogisticMap(slope=round(slope, _DIGITS), intercept=round(float(curve.intercept_[0]), _DIGITS))


def reliability(probabilities: Floats, pairs: Pairs, prior: float = BALANCED, seed: int = 0) -> Reliability:
    """Compare probabilities `(N,)` with what came true, where pairs of one person weigh `prior` together."""
    weights = pairs.weights(prior)
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    names, person = np.unique(pairs.persons, return_inverse=True)
    cells, shape = person * BINS + bins, (len(names), BINS)

    def total(values: Floats) -> Floats:
        return np.bincount(cells, values, minlength=shape[0] * BINS).reshape(shape).astype(np.float64)

    weight, same, predicted = total(weights), total(weights * pairs.same), total(weights * probabilities)
    filled = weight.sum(axis=0) > 0
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=400).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = ((drawn @ same) / (drawn @ weight))[:, filled]
    low, high = np.nanquantile(shares, (0.025, 0.975), axis=0)
    mass = weight.sum(axis=0)[filled]
    return Reliability(predicted.sum(axis=0)[filled] / mass, same.sum(axis=0)[filled] / mass, low, high, mass)


def _halves(query: LabelledFeatures, gallery: LabelledFeatures, seed: int) -> tuple[Pairs, Pairs, tuple[int, int]]:
    """The pairs of each half of the persons, and how many persons those are.

    Distractors, who are nobody in particular, are shared out crop by crop.
    """
    rng = np.random.default_rng(seed)
    persons = np.setdiff1d(query.pids, [DISTRACTOR, JUNK])
    others = np.setdiff1d(gallery.pids, [*persons, DISTRACTOR, JUNK])
    halves = [
        np.concatenate([some[0::2], more[0::2]]) if first else np.concatenate([some[1::2], more[1::2]])
        for some, more in [(rng.permutation(persons), rng.permutation(others))]
        for first in (True, False)
    ]
    coins = rng.random(len(gallery.pids)) < 0.5
    fitting, judging = (
        _pairs(
            _some(query, np.isin(query.pids, half)),
            _some(gallery, np.isin(gallery.pids, half) | ((gallery.pids == DISTRACTOR) & (coins == heads))),
            rng,
        )
        for half, heads in zip(halves, (True, False), strict=True)
    )
    return fitting, judging, (len(halves[0]), len(halves[1]))


def _some(features: LabelledFeatures, chosen: NDArray[np.bool_]) -> LabelledFeatures:
    return LabelledFeatures(features.features[chosen], features.pids[chosen], features.cameras[chosen])


def _pairs(query: LabelledFeatures, gallery: LabelledFeatures, rng: np.random.Generator) -> Pairs:
    share = min(1.0, MOST_DIFFERENT_PAIRS / max(len(query.pids) * len(gallery.pids), 1))
    similarities, same, persons, start = [], [], [], 0
    of_one = of_two = 0
    for block in cosine_blocks(query.features, gallery.features):
        rows = slice(start, start + len(block))
        start += len(block)
        alike = query.pids[rows, None] == gallery.pids
        cameras = query.cameras[rows, None]
        across = (cameras != gallery.cameras) | (cameras == NO_CAMERA)
        of_one, of_two = of_one + int((alike & across).sum()), of_two + int((~alike & across).sum())
        kept = across & (alike | (rng.random(block.shape) < share))
        similarities.append(block[kept])
        same.append(alike[kept])
        persons.append(np.broadcast_to(query.pids[rows, None], block.shape)[kept])
    return Pairs(
        np.concatenate([np.empty(0), *similarities]).astype(np.float64),
        np.concatenate([np.empty(0, np.bool_), *same]),
        np.concatenate([np.empty(0, np.int64), *persons]),
        of_one / max(of_one + of_two, 1),
    )
