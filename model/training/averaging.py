"""Interpolation of initial and fine-tuned weights (WiSE-FT, arXiv 2109.01903)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Weights


def averaged_weights(initial: Weights, trained: Weights, share: float) -> dict[str, NDArray[Any]]:
    """`(1 - share) * initial + share * trained`, tensor by tensor, in float32.

    share: the paper's alpha.
    """
    return {
        name: ((1 - share) * initial[name].astype(np.float32) + share * weights).astype(weights.dtype)
        for name, weights in trained.items()
    }
