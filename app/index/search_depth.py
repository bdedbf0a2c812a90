"""How deep a search of the segment goes: measured on the segment's own crops for a wanted recall."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from app.index.nearest import UNTYPED_FAISS

TOP_K = (10, 100, 1000)
"""The values of `top_k` that are measured; others are interpolated."""

MARGIN = 0.6
"""Share of the allowed misses that the measurement may have: other queries may miss more."""

_REFINE_MISSES = 0.2
"""Share of these misses that the SQ8 codes may cause; the rest is left to the IVF lists and PQ codes."""

_CODES_PER_CANDIDATE = 30
"""Comparing the SQ8 code of a candidate takes as long as scanning this many PQ codes."""

_NPROBE_STEP = 1.25
"""Factor from one nprobe that is tried to the next."""

_FILTER_DEPTH = 2
"""Factor on the depth if a filter passes a random share of the crops: the last wanted crop may lie deeper."""


@dataclass(frozen=True)
class Depth:
    """The parameters of one search of a segment.

    nprobe: IVF lists to search. candidates: crops whose SQ8 codes are compared. returned: best of these.
    """

    nprobe: int
    candidates: int
    returned: int


@dataclass(frozen=True)
class SearchDepth:
    """The depth that reaches the wanted recall for each of several values of `top_k`, ascending."""

    top_k: tuple[int, ...]
    depths: tuple[Depth, ...]

    def at(self, top_k: int, share: float = 1) -> Depth:
        """The depth for the `top_k` most similar among a random share of the crops."""
        plain = self._at(top_k)
        if share == 1:
            return plain
        deeper = self._at(_FILTER_DEPTH * top_k / share)
        return Depth(
            deeper.nprobe,
            max(plain.candidates, math.ceil(deeper.candidates * share)),
            max(plain.returned, math.ceil(deeper.returned * share)),
        )

    def _at(self, top_k: float) -> Depth:
        """Log-log interpolation between the measured values; proportional to `top_k` beyond the last one."""
        if top_k <= self.top_k[0]:
            return self.depths[0]
        if top_k >= self.top_k[-1]:
            return _between(self.depths[-1], self.depths[-1], 0, top_k / self.top_k[-1])
        after = bisect_right(self.top_k, top_k)
        low, high = self.top_k[after - 1], self.top_k[after]
        fraction = math.log(top_k / low) / math.log(high / low)
        return _between(self.depths[after - 1], self.depths[after], fraction)


def _between(low: Depth, high: Depth, fraction: float, factor: float = 1) -> Depth:
    """The geometric mean of two depths at a fraction of the way between them, times a factor."""

    def mean(start: int, end: int) -> int:
        return math.ceil(factor * start * math.pow(end / start, fraction))

    return Depth(
        mean(low.nprobe, high.nprobe), mean(low.candidates, high.candidates), mean(low.returned, high.returned)
    )


def exhaustive_depth(crops: int, nlist: int) -> SearchDepth:
    """A depth that compares all crops, whatever `top_k` is."""
    return SearchDepth((max(1, crops),), (Depth(nlist, max(1, crops), max(1, crops)),))


class GroundTruth:
    """The exact nearest crops of some queries, found while the crops are added."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        """queries: `(Q, 2048)`, crops that are among those added."""
        self.queries = queries
        self._best: Any = faiss.ResultHeap(len(queries), TOP_K[-1] + 1, keep_max=True)
        self._added = 0

    def add(self, embeddings: NDArray[np.float32]) -> None:
        """Compare the next rows `(N, 2048)`."""
        count = min(len(embeddings), TOP_K[-1] + 1)
        similarities, rows = faiss.knn(self.queries, embeddings, count, faiss.METRIC_INNER_PRODUCT)
        self._best.add_result(similarities, rows + self._added)
        self._added += len(embeddings)

    def rows(self) -> NDArray[np.int64]:
        """The rows nearest to each query, best first, without the query itself: `(Q, N)`."""
        self._best.finalize()
        found: NDArray[np.int64] = self._best.I[:, 1 : self._added]
        return found


def measure(index: Any, queries: NDArray[np.float32], true: NDArray[np.int64], recall: float) -> SearchDepth:
    """The cheapest depth with this recall for each `top_k`.

    index: a `faiss.IndexRefine` of an IVF index. queries: projected, `(Q, D)`. true: `(Q, N)`, best first.
    """
    base: Any = faiss.downcast_index(index.base_index)
    misses = (1 - recall) * MARGIN
    wanted = tuple(top_k for top_k in TOP_K if 4 * top_k <= base.ntotal and top_k <= true.shape[1]) or (
        min(TOP_K[0], true.shape[1]),
    )
    most = min(base.ntotal, max(2_000, 10 * wanted[-1]))
    depths = []
    ranks = {nprobe: _ranks(base, queries, true[:, : wanted[-1]], nprobe, most) for nprobe in _nprobes(base.nlist)}
    for top_k in wanted:
        nprobe, candidates = _cheapest(
            {nprobe: found[:, :top_k] for nprobe, found in ranks.items()},
            most,
            1 - misses * (1 - _REFINE_MISSES),
            base.ntotal / base.nlist,
        )
        refined = UNTYPED_FAISS.IndexRefineSearchParameters(
            k_factor=1.0, base_index_params=UNTYPED_FAISS.SearchParametersIVF(nprobe=nprobe)
        )
        found = index.search(queries, candidates, params=refined)[1]
        ranks_refined = _positions(found, true[:, :top_k])
        reached = np.sort(ranks_refined[ranks_refined < candidates])
        returned = int(reached[min(len(reached) - 1, math.ceil((1 - misses * _REFINE_MISSES) * len(reached)) - 1)]) + 1
        depths.append(Depth(nprobe, candidates, max(returned, top_k)))
    return SearchDepth(wanted, tuple(depths))


def _nprobes(nlist: int) -> list[int]:
    """Values of nprobe to try, ascending: up to all lists."""
    values = [min(nlist, 4)]
    while values[-1] < nlist:
        values.append(min(nlist, math.ceil(values[-1] * _NPROBE_STEP)))
    return values


def _ranks(
    base: Any, queries: NDArray[np.float32], true: NDArray[np.int64], nprobe: int, most: int
) -> NDArray[np.int64]:
    """The rank of each true row among the candidates of the IVF index; `most` if it is not among them."""
    found = base.search(queries, most, params=UNTYPED_FAISS.SearchParametersIVF(nprobe=nprobe))[1]
    return _positions(found, true)


def _positions(found: NDArray[np.int64], true: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each true row is among those found, by query: `(Q, N)`; the number of those found if it is not there."""
    positions = np.full(true.shape, found.shape[1], np.int64)
    for query, (candidates, rows) in enumerate(zip(found, true, strict=True)):
        order = np.argsort(candidates)
        place = np.minimum(np.searchsorted(candidates, rows, sorter=order), len(candidates) - 1)
        hit = candidates[order[place]] == rows
        positions[query, hit] = order[place[hit]]
    return positions


def _cheapest(ranks: Mapping[int, NDArray[np.int64]], most: int, recall: float, list_length: float) -> tuple[int, int]:
    """nprobe and number of candidates with this recall at the lowest cost; the most of both if none reaches it."""
    choices: list[tuple[float, int, int]] = []
    for nprobe, found in ranks.items():
        ordered = np.sort(found, axis=None)
        rank = int(ordered[math.ceil(recall * len(ordered)) - 1])
        if rank < most:
            choices.append((nprobe * list_length + rank * _CODES_PER_CANDIDATE, nprobe, rank + 1))
    _, nprobe, candidates = min(choices, default=(0.0, max(ranks), most))
    return nprobe, candidates
