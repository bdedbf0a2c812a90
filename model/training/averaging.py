"""Averaging first and trained weights, which keeps what the first knew (WiSE-FT, arXiv 2109.01903)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Weights


def averaged_weights(first: Weights, trained: Weights, share: float) -> dict[str, NDArray[Any]]:
    """`share` of the way from the first weights to the trained ones, tensor by tensor, in single precision.

    share: the paper's alpha, 0 gives the first and 1 the trained weights.
    """
    return {
        name: ((1 - share) * first[name].astype(np.float32) + share * weights).astype(weights.dtype)
        for name, weights in trained.items()
    }
