"""Fitting the map from similarity to probability on half of the held-out persons; evaluation on the other half."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.calibration import BALANCED, Calibration, IsotonicMap, LogisticMap, at_prior
from model.datasets.base import DISTRACTOR, JUNK, NO_CAMERA, EvaluationSplit, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures
from model.metrics import cosine_blocks

Kind = Literal["isotonic", "logistic"]
Floats = NDArray[np.float64]

MAX_DIFFERENT_PAIRS = 2_000_000
"""The approximate number of different-person pairs to sample; all same-person pairs are used."""

MAX_HALF_WIDTH = 0.1
"""The half width that the 95 % interval of a fitted probability may have without a note, as a fraction of 1."""

ADVISED_IDENTITIES = 2 * math.ceil(0.25 * (1.96 / MAX_HALF_WIDTH) ** 2)
"""The number of persons at which `half_width` is MAX_HALF_WIDTH: half of them fit the map, half judge it."""

BINS = 10
"""The number of bins of equal width in which probabilities are compared with observed shares."""

_RESAMPLES = 400

_DIGITS = 8


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query crop and a gallery crop from different or unknown cameras: `(N,)` each.

    similarities: cosines. same: whether both crops show the same person. persons: the query's pid. natural_prior: the
    share of same-person pairs before sampling.
    """

    similarities: Floats
    same: NDArray[np.bool_]
    persons: NDArray[np.int64]
    natural_prior: float

    def weights(self, prior: float = BALANCED) -> Floats:
        """`(N,)`, with sum 1: same-person pairs have the total weight `prior`."""
        share = self.same.mean()
        ratios = np.where(self.same, prior / max(share, 1e-12), (1 - prior) / max(1 - share, 1e-12))
        return np.asarray(ratios / len(self.same))


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities and observed shares in bins of equal width, without empty bins: `(B,)` each.

    predicted: mean probability. observed: share of same-person pairs. low, high: the observed share's 95 % interval,
    from resampling the query persons. weight: the bin's share of all pairs.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    weight: Floats

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance between predicted and observed, weighted by pairs (Naeini et al., AAAI 2015)."""
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
    """Fit a map on a random half of the persons, and evaluate it on the other half.

    data: the data set's name. seed: of the split into halves. Raises DataError if a half has no same-person pairs or no
    different-person pairs.
    """
    fitting, evaluation, persons = _halves(query, gallery, seed)
    _require_pairs((fitting, evaluation), data)
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


def check_pairs(split: EvaluationSplit, data: str, seed: int = 0) -> tuple[str, ...]:
    """Check by the labels alone that `calibrate` has pairs to fit and to evaluate; returns a note for few persons.

    data: the split's name. seed: that of `calibrate`. Raises DataError as `calibrate` does.
    """
    fitting, evaluation, _ = _halves(_labels(split.query), _labels(split.gallery), seed)
    _require_pairs((fitting, evaluation), data)
    persons = len({sample.pid for sample in split.query} - {DISTRACTOR, JUNK})
    if persons >= ADVISED_IDENTITIES:
        return ()
    return (
        f"{persons} identities are few: half of them fit the map, so a probability near 1/2 may be off by "
        f"{100 * half_width(-(-persons // 2)):.0f} points; {ADVISED_IDENTITIES} identities make it "
        f"{100 * MAX_HALF_WIDTH:.0f}",
    )


def half_width(fitted_identities: int) -> float:
    """The half width of the 95 % interval of a probability of 1/2, as a fraction of 1: `1.96 * sqrt(0.25 / n)`.

    The persons are the sample, as the pairs of one person depend on each other (Cochran, Sampling Techniques, 1977,
    section 4.4). Maps fitted on random persons of Market-1501 scatter by this much: docs/training.md, section 5.

    >>> round(half_width(2), 2), round(half_width(50), 2), round(half_width(97), 2)
    (0.5, 0.14, 0.1)
    """
    return min(0.5, 1.96 * math.sqrt(0.25 / fitted_identities))


def _labels(samples: Sequence[Sample]) -> LabelledFeatures:
    """Labels without features."""
    return LabelledFeatures(
        np.zeros((len(samples), 1), np.float32),
        np.array([sample.pid for sample in samples], dtype=np.int64),
        np.array([sample.camera for sample in samples], dtype=np.int64),
    )


def _require_pairs(halves: Sequence[Pairs], data: str) -> None:
    """Raise DataError if a half of the persons has no same-person or no different-person pairs."""
    if any(not pairs.same.any() or pairs.same.all() for pairs in halves):
        raise DataError(
            f"{data} has too few persons to calibrate on: each half of them must give same-person and "
            f"different-person pairs, seen by different cameras; {ADVISED_IDENTITIES} persons are advised"
        )


def fit_isotonic(pairs: Pairs) -> IsotonicMap:
    """The isotonic regression at the balanced prior.

    A different-person pair at the highest similarity and a same-person pair at the lowest are added (rule of
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

    regression = LogisticRegression(C=1e6, max_iter=1000)
    # Weights of mean 1 keep the (nearly absent) penalty small relative to the likelihood.
    regression.fit(pairs.similarities[:, None], pairs.same, sample_weight=pairs.weights() * len(pairs.same))
    slope = float(regression.coef_[0, 0])
    if slope <= 0:
        raise DataError(
            f"same-person pairs are no more similar than different-person pairs (slope {slope:.3g}): this checkpoint "
            "cannot be calibrated on this data"
        )
    return LogisticMap(slope=round(slope, _DIGITS), intercept=round(float(regression.intercept_[0]), _DIGITS))


def reliability(probabilities: Floats, pairs: Pairs, prior: float = BALANCED, seed: int = 0) -> Reliability:
    """Compare probabilities `(N,)` of the pairs with observed shares; same-person pairs have the total weight `prior`.

    seed: of the resamples for the intervals.
    """
    weights = pairs.weights(prior)
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    pids, person = np.unique(pairs.persons, return_inverse=True)

    def total(values: Floats) -> Floats:
        """`(persons, BINS)`: the sum of values in each bin of each person."""
        sums = np.bincount(person * BINS + bins, values, minlength=len(pids) * BINS)
        return sums.reshape(len(pids), BINS).astype(np.float64)

    weight, same, predicted = total(weights), total(weights * pairs.same), total(weights * probabilities)
    filled = weight.sum(axis=0) > 0
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(pids), np.full(len(pids), 1 / len(pids)), size=_RESAMPLES).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares = ((counts @ same) / (counts @ weight))[:, filled]
    low, high = np.nanquantile(shares, (0.025, 0.975), axis=0)
    mass = weight.sum(axis=0)[filled]
    return Reliability(predicted.sum(axis=0)[filled] / mass, same.sum(axis=0)[filled] / mass, low, high, mass)


def _halves(query: LabelledFeatures, gallery: LabelledFeatures, seed: int) -> tuple[Pairs, Pairs, tuple[int, int]]:
    """The pairs of each half of the persons, and the number of persons in each.

    Persons with and without queries are halved separately; distractors, which have no identity, crop by crop.
    """
    rng = np.random.default_rng(seed)
    queried = np.setdiff1d(query.pids, [DISTRACTOR, JUNK])
    unqueried = np.setdiff1d(gallery.pids, [*queried, DISTRACTOR, JUNK])
    queried, unqueried = rng.permutation(queried), rng.permutation(unqueried)
    halves = [np.concatenate([queried[half::2], unqueried[half::2]]) for half in (0, 1)]
    is_distractor = gallery.pids == DISTRACTOR
    is_first_half = rng.random(len(gallery.pids)) < 0.5
    fitting, evaluation = (
        _pairs(
            _select(query, np.isin(query.pids, pids)),
            _select(gallery, np.isin(gallery.pids, pids) | distractors),
            rng,
        )
        for pids, distractors in zip(
            halves, (is_distractor & is_first_half, is_distractor & ~is_first_half), strict=True
        )
    )
    return fitting, evaluation, (len(halves[0]), len(halves[1]))


def _select(features: LabelledFeatures, rows: NDArray[np.bool_]) -> LabelledFeatures:
    return LabelledFeatures(features.features[rows], features.pids[rows], features.cameras[rows])


def _pairs(query: LabelledFeatures, gallery: LabelledFeatures, rng: np.random.Generator) -> Pairs:
    """All same-person pairs and a sample of the different-person pairs, from different or unknown cameras."""
    share = min(1.0, MAX_DIFFERENT_PAIRS / max(len(query.pids) * len(gallery.pids), 1))
    similarities, same, persons, start = [], [], [], 0
    same_count = pair_count = 0
    for block in cosine_blocks(query.features, gallery.features):
        rows = slice(start, start + len(block))
        start += len(block)
        is_same = query.pids[rows, None] == gallery.pids
        cameras = query.cameras[rows, None]
        is_valid = (cameras != gallery.cameras) | (cameras == NO_CAMERA)
        same_count += int((is_same & is_valid).sum())
        pair_count += int(is_valid.sum())
        kept = is_valid & (is_same | (rng.random(block.shape) < share))
        similarities.append(block[kept])
        same.append(is_same[kept])
        persons.append(np.broadcast_to(query.pids[rows, None], block.shape)[kept])
    return Pairs(
        np.concatenate([np.empty(0), *similarities]).astype(np.float64),
        np.concatenate([np.empty(0, np.bool_), *same]),
        np.concatenate([np.empty(0, np.int64), *persons]),
        same_count / max(pair_count, 1),
    )
