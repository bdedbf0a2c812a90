"""What the index does with row numbers: takes them in pieces, samples them, and makes room for more."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 4_096
"""Rows of embeddings that are read together: 16 MiB."""

_SEED = 1804

Value = TypeVar("Value", bound=np.generic)


def pieces(rows: NDArray[np.int64], at_once: int) -> Iterator[NDArray[np.int64]]:
    """The same numbers, so many at a time."""
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def sampled(rows: int, most: int) -> NDArray[np.int64]:
    """Up to `most` of the numbers below `rows`, ascending, evenly by chance."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))


def longer(array: NDArray[Value], size: int) -> NDArray[Value]:
    """An array by row number with zeros behind it, or itself if it is that long."""
    if len(array) >= size:
        return array
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])
