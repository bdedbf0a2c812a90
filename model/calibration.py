"""The map from the similarity of two crops to the probability that they show the same person; needs no torch.

`model/calibrate.py` fits and evaluates the map; a checkpoint stores it; `Calibration.probability` applies it.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from model.frozen import FrozenModel

BALANCED = 0.5
"""The prior at which same-person and different-person pairs are equally likely."""

Probability = Annotated[float, Field(ge=0, le=1)]
Prior = Annotated[float, Field(gt=0, lt=1)]


class IsotonicMap(FrozenModel):
    """A non-decreasing, piecewise linear map; constant before the first knot and after the last."""

    kind: Literal["isotonic"] = "isotonic"
    similarities: tuple[float, ...]
    probabilities: tuple[Probability, ...]

    @model_validator(mode="after")
    def _is_non_decreasing(self) -> Self:
        if not self.similarities or len(self.similarities) != len(self.probabilities):
            raise ValueError("an isotonic map has at least one knot, and a probability for each")
        if any(a >= b for a, b in pairwise(self.similarities)):
            raise ValueError("the knots of an isotonic map are sorted by their similarities")
        if any(a > b for a, b in pairwise(self.probabilities)):
            raise ValueError("the probabilities of an isotonic map never decrease")
        return self

    def __call__(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Probabilities at the calibration's own prior, in the shape of the similarities."""
        return np.asarray(np.interp(np.asarray(similarity, np.float64), self.similarities, self.probabilities))


class LogisticMap(FrozenModel):
    """The probability 1 / (1 + exp(-(slope x similarity + intercept))); Platt, 1999."""

    kind: Literal["logistic"] = "logistic"
    slope: Annotated[float, Field(ge=0)]
    intercept: float

    def __call__(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Probabilities at the calibration's own prior, in the shape of the similarities."""
        score = self.slope * np.asarray(similarity, np.float64) + self.intercept
        return np.asarray(0.5 * (1 + np.tanh(score / 2)))  # equal to the formula, without overflow


class Calibration(FrozenModel):
    """A map from similarity to probability, with the pairs that it was fitted on and its calibration error.

    A pair is a query crop and a gallery crop from different or unknown cameras, of persons that the network was not
    trained on. Nearly all pairs show different persons; the exact share depends on the number of persons in the gallery
    and does not transfer to another gallery. So the map is fitted at a balanced `prior`, as if half of the pairs showed
    the same person: its odds are the likelihood ratio of the similarity. Pass another prior to `probability` where a
    same-person pair is less likely beforehand.

    data: the data set's name. fitted_identities, judged_identities: the numbers of persons that the map is fitted and
    evaluated on. same_pairs, different_pairs: the numbers of same-person and different-person pairs that the map is
    fitted on. natural_prior: the share of same-person pairs among all pairs. expected_calibration_error: the mean
    distance between predicted probability and observed share at `prior`, on the evaluated persons; 0 is perfect
    (Naeini et al., AAAI 2015; bins of equal width).
    """

    map: Annotated[IsotonicMap | LogisticMap, Field(discriminator="kind")]
    data: str
    fitted_identities: Annotated[int, Field(ge=1)]
    judged_identities: Annotated[int, Field(ge=1)]
    same_pairs: Annotated[int, Field(ge=1)]
    different_pairs: Annotated[int, Field(ge=1)]
    prior: Prior = BALANCED
    natural_prior: Prior
    expected_calibration_error: Probability

    @property
    def held_out_identities(self) -> int:
        """The number of all persons of the calibration, fitted and evaluated."""
        return self.fitted_identities + self.judged_identities

    def probability(self, similarity: ArrayLike, prior: float | None = None) -> NDArray[np.float64]:
        """The probability that two crops of this cosine similarity show the same person, in the similarities' shape.

        prior: the probability before the similarity is known, for instance 1/200 for a gallery in which the person and
        199 others are equally frequent; None: the calibration's prior. Raises ValueError if the prior is not between 0
        and 1.
        """
        probabilities = self.map(similarity)
        return probabilities if prior is None else at_prior(probabilities, self.prior, prior)


def at_prior(probabilities: NDArray[np.float64], old: float, new: float) -> NDArray[np.float64]:
    """Convert probabilities to another prior: their odds change by the same factor as the prior's odds (Bayes).

    Raises ValueError for a prior that is not between 0 and 1.

    >>> at_prior(np.array([0.0, 0.5, 0.9, 1.0]), 0.5, 0.1).round(3).tolist()
    [0.0, 0.1, 0.5, 1.0]
    """
    for prior in (old, new):
        if not 0 < prior < 1:
            raise ValueError(f"the prior is {prior}; it must be between 0 and 1")
    same = probabilities * (new / old)
    different = (1 - probabilities) * ((1 - new) / (1 - old))
    return np.asarray(same / (same + different))
