"""Exact nearest neighbours in blocks, so that no matrix over all pairs is held."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

_BLOCK = 1 << 23
"""Similarities in a block; 32 MiB."""

_THREADS = os.cpu_count() or 1


class Neighbours(NamedTuple):
    """Similarities and positions `(Q, k)` of each query's nearest, nearest first, and the `lowest` `(Q,)` of all.

    Of equal similarities the first in the gallery comes first.
    """

    similarities: Features
    positions: NDArray[np.int32]
    lowest: Features


def nearest(queries: Features, gallery: Features, count: int) -> Neighbours:
    """The `count` most similar of L2-normalised `(G, D)` to each of `(Q, D)`.

    Matrix products and partial sorts: `python -m bench.evaluation` has it beside FAISS's exact search. The lowest
    similarities come for nothing.
    """
    parts: list[Neighbours] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for block in _blocks(queries, gallery):
            shares = np.array_split(block, min(_THREADS, len(block)))
            parts += pool.map(lambda share: _nearest_of(share, count), shares)
    return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _blocks(queries: Features, gallery: Features) -> Iterator[Features]:
    rows = max(1, _BLOCK // len(gallery))
    for start in range(0, len(queries), rows):
        yield queries[start : start + rows] @ gallery.T


def _nearest_of(similarities: Features, count: int) -> Neighbours:
    size = similarities.shape[1]
    near = np.argpartition(similarities, size - count, axis=1)[:, size - count :]
    values = np.take_along_axis(similarities, near, axis=1)
    order = np.lexsort((near, -values), axis=1)
    return Neighbours(
        np.take_along_axis(values, order, axis=1),
        np.take_along_axis(near, order, axis=1).astype(np.int32),
        similarities.min(axis=1),
    )
