"""Autotuning: measures on a segment's own crops which nprobe and how many candidates reach the wanted recall."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from app.index.ivf_codes import Check, EmbeddingRows, IvfCodes
from app.index.nearest import as_float32, nearest
from app.index.sq8_codes import Sq8Codes
from app.index.tuning import Tuning

DEPTHS = (10, 30, 100, 300, 1000)
"""Values of `top_k` that are measured."""

_QUERIES, _SHALLOW_QUERIES = 200, 800
"""Crops used as queries: for all depths, and in addition for shallow depths, where few hard queries decide."""

_SHALLOW = 30
_LEAST_CANDIDATES = 1_500
_LEAST_COMPARED = 500
_MARGIN = 0.8
"""Share of the allowed misses that the measurement may have: other queries may miss more."""

_CODES_PER_CANDIDATE = 30
"""Reading the SQ8 code of a candidate takes as long as scanning this many IVF codes."""

_REFINE_MISSES = 0.1
"""Share of the allowed misses that refinement may cause."""

_REFINE_MARGIN = 1.5
"""Factor on the measured number of refined candidates, which are cheap to compare."""

_LEAST_QUERIES = 50
"""With fewer queries that have a match, all queries are used."""

_FILTER_DEPTH = 2
"""Factor on the depth if a filter passes a random share of the crops: the last wanted crop may lie deeper."""

_GROWTH = 1.5

_NPROBE_STEP = 1.2
"""Factor from one nprobe that is tried to the next."""


@dataclass(frozen=True)
class DepthTable:
    """For each depth (number of most similar crops wanted): nprobe, candidates, refined candidates.

    The aliases are keys of a file in snapshots.
    """

    depths: tuple[int, ...]
    nprobe: Annotated[tuple[int, ...], Field(alias="probes")]
    candidates: tuple[int, ...]
    refined: Annotated[tuple[int, ...], Field(alias="finalists")]

    def nprobe_at(self, depth: float) -> int:
        """Number of lists to search."""
        return _interpolated(depth, self.depths, self.nprobe)

    def candidates_at(self, depth: float) -> int:
        """Number of candidates to refine by their SQ8 codes."""
        return _interpolated(depth, self.depths, self.candidates)

    def refined_at(self, depth: float) -> int:
        """Number of refined candidates to compare exactly."""
        return _interpolated(depth, self.depths, self.refined)


@dataclass(frozen=True)
class SearchDepth:
    """How deep a search must go to reach the wanted recall.

    matched_queries: measured on queries that have a match, a crop more similar than chance explains; used if all crops
    pass and all parts have the model's weights. all_queries: used if a filter excludes crops or a search weights parts
    differently. crops: number of crops at the time of the measurement. The aliases are keys of a file in snapshots.
    """

    matched_queries: Annotated[DepthTable, Field(alias="matches")]
    all_queries: Annotated[DepthTable, Field(alias="any")]
    crops: int

    def outgrown(self, crops: int) -> bool:
        """Whether a segment of this many crops should be measured again."""
        return crops >= _GROWTH * self.crops

    def nprobe(self, top_k: int, share: float) -> int:
        """Number of lists to search for the `top_k` most similar crops of a share of all."""
        if share == 1:
            return self.matched_queries.nprobe_at(top_k)
        return self.all_queries.nprobe_at(_FILTER_DEPTH * top_k / share)

    def candidates(self, top_k: int, share: float) -> int:
        """Number of candidates to refine, at least `top_k`."""
        return self._number(DepthTable.candidates_at, top_k, share)

    def refined(self, top_k: int, share: float) -> int:
        """Number of refined candidates to compare exactly, at least `top_k`."""
        return self._number(DepthTable.refined_at, top_k, share)

    def _number(self, at: Callable[[DepthTable, float], int], top_k: int, share: float) -> int:
        if share == 1:
            return max(top_k, at(self.matched_queries, top_k))
        deeper = math.ceil(at(self.all_queries, _FILTER_DEPTH * top_k / share) * share)
        return max(top_k, at(self.all_queries, top_k), deeper)


def autotune(
    codes: IvfCodes, sq8: Sq8Codes, rows: EmbeddingRows, live: NDArray[np.bool_], tuning: Tuning, check: Check
) -> SearchDepth:
    """Measure the search depth with random crops of the segment as queries.

    Ground truth: all lists are searched for several times the wanted number of candidates, and those that are best by
    SQ8 codes are compared exactly. live: mask of all rows, true for those that hold crops.
    """
    crops = np.flatnonzero(live)
    selected = None if len(crops) == len(codes) else live
    depths = tuple(depth for depth in DEPTHS if depth <= len(crops) // 4) or (DEPTHS[0],)
    rng = np.random.default_rng(len(crops))
    queries = rng.choice(crops, min(_QUERIES + _SHALLOW_QUERIES, len(crops)), replace=False)
    chance = _best_by_chance(as_float32(rows.read(np.sort(queries[:_QUERIES]))), len(crops))
    measured = []
    for number, row in enumerate(queries.tolist()):
        check()
        depth = depths[-1] if number < _QUERIES else min(_SHALLOW, depths[-1])
        measured.append(_measure(codes, sq8, rows, row, depth, selected))
    matched = [query for query in measured if query.similarities[0] > chance]
    if len(matched) < _LEAST_QUERIES:
        matched = measured
    misses = (1 - tuning.recall) * _MARGIN
    list_length = len(codes) / codes.nlist

    def depth_table(queries: Sequence[_Measured]) -> DepthTable:
        nprobe, candidates = _cheapest_at(depths, queries, 1 - misses, list_length)
        return DepthTable(depths, nprobe, candidates, _refined_at(depths, queries, 1 - misses * _REFINE_MISSES))

    return SearchDepth(depth_table(matched), depth_table(measured), len(crops))


@dataclass(frozen=True, eq=False)
class _Measured:
    """The crops most similar to a query, each array `(N,)`.

    similarities: exact. list_ranks: rank of each crop's list in the order of the search. ranks, sq8_ranks: rank of the
    crop among the candidates by IVF code and by SQ8 code.
    """

    similarities: NDArray[np.float32]
    list_ranks: NDArray[np.int64]
    ranks: NDArray[np.int64]
    sq8_ranks: NDArray[np.int64]


def _cheapest_at(
    depths: Sequence[int], measured: Sequence[_Measured], recall: float, list_length: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each depth, nprobe and number of candidates that reach a recall at the lowest cost."""
    chosen = []
    for depth in depths:
        queries = _deep_enough(measured, depth)
        list_ranks = np.concatenate([query.list_ranks[:depth] for query in queries])
        ranks = np.concatenate([query.ranks[:depth] for query in queries])
        chosen.append(_cheapest(list_ranks, ranks, math.ceil(recall * len(list_ranks)), list_length))
    return tuple(nprobe for nprobe, _ in chosen), tuple(candidates for _, candidates in chosen)


def _refined_at(depths: Sequence[int], measured: Sequence[_Measured], recall: float) -> tuple[int, ...]:
    """For each depth, the number of refined candidates that keeps this share of the wanted candidates."""
    chosen = []
    for depth in depths:
        ranks = np.sort(np.concatenate([query.sq8_ranks[:depth] for query in _deep_enough(measured, depth)]))
        chosen.append(math.ceil(_REFINE_MARGIN * (int(ranks[math.ceil(recall * len(ranks)) - 1]) + 1)))
    return tuple(chosen)


def _deep_enough(measured: Sequence[_Measured], depth: int) -> list[_Measured]:
    deepest = max(len(query.list_ranks) for query in measured)
    return [query for query in measured if len(query.list_ranks) >= min(depth, deepest)]


def _cheapest(
    list_ranks: NDArray[np.int64], ranks: NDArray[np.int64], wanted: int, list_length: float
) -> tuple[int, int]:
    """nprobe and number of candidates that find `wanted` of the crops with these ranks at the lowest cost."""
    choices: list[tuple[float, int, int]] = []
    nprobe = int(np.sort(list_ranks)[wanted - 1]) + 1
    while not choices or choices[-1][1] <= list_ranks.max():
        candidates = int(np.sort(ranks[list_ranks < nprobe])[wanted - 1]) + 1
        choices.append((nprobe * list_length + candidates * _CODES_PER_CANDIDATE, nprobe, candidates))
        nprobe = math.ceil(nprobe * _NPROBE_STEP)
    _, nprobe, candidates = min(choices)
    return nprobe, candidates


def _best_by_chance(sample: NDArray[np.float32], crops: int) -> float:
    """The approximate highest similarity of a query to this many crops if all were of different persons.

    It is the expected maximum of normal draws: mean + deviation * sqrt(2 ln N).
    """
    similarities = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return float(similarities.mean() + similarities.std() * math.sqrt(2 * math.log(crops)))


def _measure(
    codes: IvfCodes, sq8: Sq8Codes, rows: EmbeddingRows, row: int, depth: int, selected: NDArray[np.bool_] | None
) -> _Measured:
    """Search with the crop of a row as the query."""
    query = as_float32(rows.read(np.array([row])))[0]
    projected = codes.projection.query(query)
    candidates = codes.search(projected[None], codes.nlist, max(4 * depth, _LEAST_CANDIDATES), selected)[0]
    candidates = candidates[(candidates >= 0) & (candidates != row)]
    sq8_ranks = np.empty(len(candidates), np.int64)
    sq8_ranks[np.argsort(-sq8.similarities(projected, candidates))] = np.arange(len(candidates))
    close = np.flatnonzero(sq8_ranks < 2 * depth + _LEAST_COMPARED)
    embeddings = rows.read(candidates[close])
    similarities, order = nearest(query, as_float32(embeddings), None, depth)
    ranks = close[order]
    return _Measured(similarities, codes.list_ranks(projected, embeddings[order]), ranks, sq8_ranks[ranks])


def _interpolated(depth: float, depths: tuple[int, ...], values: tuple[int, ...]) -> int:
    """The value at a depth: log-log interpolation between depths, proportional to the depth beyond the last one."""
    if depth <= depths[0]:
        return values[0]
    if depth >= depths[-1]:
        return math.ceil(values[-1] * depth / depths[-1])
    after = bisect_right(depths, depth)
    fraction = math.log(depth / depths[after - 1]) / math.log(depths[after] / depths[after - 1])
    return math.ceil(values[after - 1] * math.pow(values[after] / values[after - 1], fraction))
