"""Helpers for arrays of row numbers: chunks, samples, and arrays indexed by row."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 4_096
"""Rows of embeddings that are read at once: 16 MiB."""

_SEED = 1804

Value = TypeVar("Value", bound=np.generic)


def chunks(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The row numbers in chunks of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def sample_rows(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers below `count`, uniformly at random, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, most, replace=False))


def zero_padded(array: NDArray[Value], size: int) -> NDArray[Value]:
    """The array with zeros appended up to `size`; the array itself if it is that long."""
    if len(array) >= size:
        return array
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])
