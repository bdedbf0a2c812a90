"""Fitting a map from similarity to probability on half of the held-out persons, and evaluating it on the rest."""

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
"""The approximate number of pairs of two persons to sample; all pairs of one person are used."""

BINS = 10
"""The number of bins of equal width for comparing probabilities with shares."""

_DIGITS = 8


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query crop and a gallery crop by different or unknown cameras: `(N,)` each.

    similarities: their cosines. same: whether they show one person. persons: the query's person.
    natural_prior: the share of pairs of one person before sampling.
    """

    similarities: Floats
    same: NDArray[np.bool_]
    persons: NDArray[np.int64]
    natural_prior: float

    def weights(self, prior: float = BALANCED) -> Floats:
        """`(N,)`, with sum 1: pairs of one person have the total weight `prior`."""
        share = self.same.mean()
        each = np.where(self.same, prior / max(share, 1e-12), (1 - prior) / max(1 - share, 1e-12))
        return np.asarray(each / len(self.same))


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities and observed shares in bins of equal width, without empty bins: `(B,)` each.

    predicted: mean probability. observed: share of pairs of one person; low, high: its 95 % interval, from resampling
    the query persons. weight: the bin's share of all pairs.
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
    """A calibration, the pairs it was evaluated on, and its reliability at the balanced and at their natural prior."""

    calibration: Calibration
    pairs: Pairs
    balanced: Reliability
    natural: Reliability


def calibrate(
    query: LabelledFeatures, gallery: LabelledFeatures, data: str, kind: Kind = "isotonic", seed: int = 0
) -> CalibrationResult:
    """Fit a map on half of the persons, drawn by the seed, and evaluate it on the other half.

    data: the data set's name. Raises DataError if a half has no pairs of one person, or no pairs of two.
    """
    fitting, evaluation, persons = _halves(query, gallery, seed)
    for pairs in (fitting, evaluation):
        if not pairs.same.any() or pairs.same.all():
            raise DataError(
                f"{data} has too few persons to calibrate on: each half of them must give pairs of one person and of "
                "two, seen by different cameras"
            )
    similarity_map = fit_isotonic(fitting) if kind == "isotonic" else fit_logistic(fitting)
    probabilities = similarity_map(evaluation.similarities)
    balanced = reliability(probabilities, evaluation, BALANCED, seed)
    calibration = Calibration(
        map=similarity_map,
        data=data,
        fitted_identities=persons[0],
        judged_identities=persons[1],
        same_pairs=int(fitting.same.sum()),
        different_pairs=int((~fitting.same).sum()),
        natural_prior=fitting.natural_prior,
        expected_calibration_error=round(balanced.expected_calibration_error, 6),
    )
    natural_prior = evaluation.natural_prior
    natural = reliability(at_prior(probabilities, BALANCED, natural_prior), evaluation, natural_prior, seed)
    return CalibrationResult(calibration, evaluation, balanced, natural)


def fit_isotonic(pairs: Pairs) -> IsotonicMap:
    """The isotonic regression at the balanced prior.

    A pair of two persons at the highest similarity and a pair of one person at the lowest are added (rule of
    succession), so that no probability is 0 or 1 even if the two kinds of pairs are fully separated.
    """
    from sklearn.isotonic import IsotonicRegression

    weights = pairs.weights()
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    regression.fit(
        np.append(pairs.similarities, [pairs.similarities.min(), pairs.similarities.max()]),
        np.append(pairs.same, [True, False]).astype(np.float64),
        sample_weight=np.append(weights, [weights[pairs.same][0], weights[~pairs.same][0]]),
    )
    similarities, first = np.unique(regression.X_thresholds_.round(_DIGITS), return_index=True)
    probabilities = np.maximum.accumulate(regression.y_thresholds_[first].round(_DIGITS))
    return IsotonicMap(similarities=tuple(similarities.tolist()), probabilities=tuple(probabilities.tolist()))


def fit_logistic(pairs: Pairs) -> LogisticMap:
    """The logistic regression at the balanced prior. Raises DataError if its slope is not positive."""
    from sklearn.linear_model import LogisticRegression

    # A mean weight of 1 keeps the ratio of fit to the (nearly absent) penalty.
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
    """Compare probabilities `(N,)` with the pairs, in which pairs of one person have the total weight `prior`."""
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
    """The pairs of each half of the persons, and the number of persons in each.

    Distractors, which have no identity, are split crop by crop.
    """
    rng = np.random.default_rng(seed)
    persons = np.setdiff1d(query.pids, [DISTRACTOR, JUNK])
    others = np.setdiff1d(gallery.pids, [*persons, DISTRACTOR, JUNK])
    halves = [
        np.concatenate([own[0::2], rest[0::2]]) if first else np.concatenate([own[1::2], rest[1::2]])
        for own, rest in [(rng.permutation(persons), rng.permutation(others))]
        for first in (True, False)
    ]
    coins = rng.random(len(gallery.pids)) < 0.5
    fitting, evaluation = (
        _pairs(
            _select(query, np.isin(query.pids, half)),
            _select(gallery, np.isin(gallery.pids, half) | ((gallery.pids == DISTRACTOR) & (coins == heads))),
            rng,
        )
        for half, heads in zip(halves, (True, False), strict=True)
    )
    return fitting, evaluation, (len(halves[0]), len(halves[1]))


def _select(features: LabelledFeatures, chosen: NDArray[np.bool_]) -> LabelledFeatures:
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
