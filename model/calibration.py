"""From the similarity of two crops to the probability that they show one person; needs neither torch nor scikit-learn.

`model/calibrate.py` finds such a map and judges it; a checkpoint carries it, and `Calibration.probability` applies it.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

BALANCED = 0.5
"""The prior of a pair that is as likely one person as two."""

Probability = Annotated[float, Field(ge=0, le=1)]
Prior = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IsotonicMap(_Value):
    """A rising line through knots; constant before the first and after the last."""

    kind: Literal["isotonic"] = "isotonic"
    similarities: tuple[Finite, ...]
    probabilities: tuple[Probability, ...]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.similarities or len(self.similarities) != len(self.probabilities):
            raise ValueError("an isotonic map has at least one knot, and a probability for each")
        if any(a >= b for a, b in pairwise(self.similarities)):
            raise ValueError("the knots of an isotonic map are sorted by their similarities")
        if any(a > b for a, b in pairwise(self.probabilities)):
            raise ValueError("the probabilities of an isotonic map never fall")
        return self

    def __call__(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Probabilities at the calibration's own prior, in the shape of the similarities."""
        return np.asarray(np.interp(np.asarray(similarity, np.float64), self.similarities, self.probabilities))


class LogisticMap(_Value):
    """The probability 1 / (1 + exp(-(slope x similarity + intercept))); Platt, 1999."""

    kind: Literal["logistic"] = "logistic"
    slope: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    intercept: Finite

    def __call__(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Probabilities at the calibration's own prior, in the shape of the similarities."""
        score = self.slope * np.asarray(similarity, np.float64) + self.intercept
        return np.asarray(0.5 * (1 + np.tanh(score / 2)))  # the same as the formula, and never overflows


class Calibration(_Value):
    """A map from similarity to probability, with the population that it is about and how well it holds there.

    The population: pairs of a query crop and a gallery crop of two different cameras (or of cameras that nobody knows),
    of persons that the network has not seen. Nearly all such pairs are of two persons; how nearly, depends on how many
    persons the gallery holds and so says nothing of another gallery. So the map is fitted at a balanced `prior`, as if
    half of the pairs were of one person: its odds are what the similarity alone says (the likelihood ratio). Where one
    person is less likely from the start, give `probability` that prior.

    data: the data set's name. fitted_identities, judged_identities: how many persons found the map, and how many others
    judged it. same_pairs, different_pairs: the pairs of the fitting persons, of one and of two persons. natural_prior:
    the share of pairs of one person among all of them. expected_calibration_error: at `prior`, on the judging persons;
    the mean distance between probability and share, 0 is perfect (Naeini et al., AAAI 2015; bins of equal width).
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
        """All persons that the calibration came from."""
        return self.fitted_identities + self.judged_identities

    def probability(self, similarity: ArrayLike, prior: float | None = None) -> NDArray[np.float64]:
        """The probability that two crops of this cosine similarity show one person, in the similarities' shape.

        prior: the probability before the similarity was seen, for instance 1/200 for one crop of a gallery in which the
        person and 199 others appear equally often; None takes the calibration's own. Raises ValueError if it is not
        between 0 and 1.
        """
        probabilities = self.map(similarity)
        return probabilities if prior is None else at_prior(probabilities, self.prior, prior)


def at_prior(probabilities: NDArray[np.float64], old: float, new: float) -> NDArray[np.float64]:
    """Carry probabilities that hold at one prior to another: their odds change as the prior's do (Bayes).

    Raises ValueError for a prior that is not between 0 and 1.

    >>> at_prior(np.array([0.0, 0.5, 0.9, 1.0]), 0.5, 0.1).round(3).tolist()
    [0.0, 0.1, 0.5, 1.0]
    """
    for prior in (old, new):
        if not 0 < prior < 1:
            raise ValueError(f"a prior is {prior}; it must lie between 0 and 1")
    same = probabilities * (new / old)
    different = (1 - probabilities) * ((1 - new) / (1 - old))
    return np.asarray(same / (same + different))
