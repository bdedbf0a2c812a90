"""How many cells a search looks into and how many crops it looks at there: measured on the gallery itself."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.index.coarse_codes import Check, CoarseCodes, Rows
from app.index.fine_codes import FineCodes
from app.index.nearest import as_float32, nearest
from app.index.tuning import Tuning

DEPTHS = (10, 30, 100, 300, 1000)
"""How many of the most similar crops are asked for in the measurement."""

_QUERIES, _SHALLOW_QUERIES = 200, 800
"""Crops that are asked with: those for all depths, and more for the shallow ones, which few hard queries decide."""

_SHALLOW = 30
_LEAST_PROPOSED = 1_500
_LEAST_COMPARED = 500
_MARGIN = 0.8
"""Of the misses that are allowed, how many the measurement may have: other queries may have more."""

_CANDIDATE_CODES = 30
"""Looking at the fine code of a candidate takes as long as looking at so many codes."""

_SIFTED_OUT = 0.1
"""Of the misses that are allowed, how many may be candidates that are no finalists."""

_SPARE = 1.5
"""A finalist costs little: so many times as many as were needed in the measurement."""

_LEAST_QUERIES = 50
"""From fewer that have a match, nothing can be learnt."""

_DEEPER = 2
"""Where a filter leaves out a share of the crops at random, the last one wanted may be that much deeper."""

_MORE = 1.5

_STEP = 1.2
"""From one number of cells that is considered to the next."""


@dataclass(frozen=True)
class Need:
    """By depth, how many of the most similar crops are wanted: cells to look into, candidates, finalists."""

    depths: tuple[int, ...]
    probes: tuple[int, ...]
    candidates: tuple[int, ...]
    finalists: tuple[int, ...]

    def probes_at(self, depth: float) -> int:
        """Cells to look into."""
        return _interpolated(depth, self.depths, self.probes)

    def candidates_at(self, depth: float) -> int:
        """Candidates whose fine codes to look at."""
        return _interpolated(depth, self.depths, self.candidates)

    def finalists_at(self, depth: float) -> int:
        """Finalists to compare exactly."""
        return _interpolated(depth, self.depths, self.finalists)


@dataclass(frozen=True)
class Probing:
    """What a search needs to find the share of the most similar crops that it shall find.

    matches: for queries that have a match, one more alike than chance makes any of so many crops; where all crops and
    all parts count as the model says. any: for all queries; where a filter leaves crops out, or a search weights parts
    otherwise. crops: how many there were when it was measured.
    """

    matches: Need
    any: Need
    crops: int

    def outgrown(self, crops: int) -> bool:
        """Whether it should be measured anew, as there are so many crops now."""
        return crops >= _MORE * self.crops

    def probes(self, top_k: int, share: float) -> int:
        """Cells to look into for the `top_k` most similar crops of a share of all."""
        return self.matches.probes_at(top_k) if share == 1 else self.any.probes_at(_DEEPER * top_k / share)

    def candidates(self, top_k: int, share: float) -> int:
        """Candidates whose fine codes to look at for the same; at least those."""
        return self._number(Need.candidates_at, top_k, share)

    def finalists(self, top_k: int, share: float) -> int:
        """Finalists to compare exactly for the same; at least those."""
        return self._number(Need.finalists_at, top_k, share)

    def _number(self, at: Callable[[Need, float], int], top_k: int, share: float) -> int:
        if share == 1:
            return max(top_k, at(self.matches, top_k))
        deeper = math.ceil(at(self.any, _DEEPER * top_k / share) * share)
        return max(top_k, at(self.any, top_k), deeper)


def measured(
    codes: CoarseCodes, fine: FineCodes, rows: Rows, live: NDArray[np.bool_], tuning: Tuning, check: Check
) -> Probing:
    """What some crops of the gallery, each as a query, need to find the crops that are most similar to them.

    Truth is what an exact comparison makes of several times as many as are asked for: of the candidates from all cells,
    those that are best by fine codes. live: a mask of all rows, those that hold crops.
    """
    crops = np.flatnonzero(live)
    among = None if len(crops) == len(codes) else live
    depths = tuple(depth for depth in DEPTHS if depth <= len(crops) // 4) or (DEPTHS[0],)
    rng = np.random.default_rng(len(crops))
    asked = rng.choice(crops, min(_QUERIES + _SHALLOW_QUERIES, len(crops)), replace=False)
    chance = _best_by_chance(as_float32(rows.read(np.sort(asked[:_QUERIES]))), len(crops))
    needs = []
    for number, row in enumerate(asked.tolist()):
        check()
        depth = depths[-1] if number < _QUERIES else min(_SHALLOW, depths[-1])
        needs.append(_needs(codes, fine, rows, row, depth, among))
    matched = [one for one in needs if one.similarities[0] > chance]
    if len(matched) < _LEAST_QUERIES:
        matched = needs
    misses = (1 - tuning.recall) * _MARGIN
    codes_a_cell = len(codes) / codes.cells

    def need(some: Sequence[_Needed]) -> Need:
        probes, candidates = _cheapest_at(depths, some, 1 - misses, codes_a_cell)
        return Need(depths, probes, candidates, _finalists_at(depths, some, 1 - misses * _SIFTED_OUT))

    return Probing(need(matched), need(needs), len(crops))


@dataclass(frozen=True, eq=False)
class _Needed:
    """Of the crops most similar to a query, each `(N,)`: similarities; ranks of their cells, and by both codes."""

    similarities: NDArray[np.float32]
    cells: NDArray[np.int64]
    ranks: NDArray[np.int64]
    fine_ranks: NDArray[np.int64]


def _cheapest_at(
    depths: Sequence[int], needs: Sequence[_Needed], least: float, codes_a_cell: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """By depth the cells, and the candidates, that find at least that share for the lowest cost."""
    chosen = []
    for depth in depths:
        some = _deep_enough(needs, depth)
        cells = np.concatenate([one.cells[:depth] for one in some])
        ranks = np.concatenate([one.ranks[:depth] for one in some])
        chosen.append(_cheapest(cells, ranks, math.ceil(least * len(cells)), codes_a_cell))
    return tuple(probes for probes, _ in chosen), tuple(candidates for _, candidates in chosen)


def _finalists_at(depths: Sequence[int], needs: Sequence[_Needed], least: float) -> tuple[int, ...]:
    """By depth, how many finalists hold at least that share of those that are candidates."""
    chosen = []
    for depth in depths:
        ranks = np.sort(np.concatenate([one.fine_ranks[:depth] for one in _deep_enough(needs, depth)]))
        chosen.append(math.ceil(_SPARE * (int(ranks[math.ceil(least * len(ranks)) - 1]) + 1)))
    return tuple(chosen)


def _deep_enough(needs: Sequence[_Needed], depth: int) -> list[_Needed]:
    deepest = max(len(one.cells) for one in needs)
    return [one for one in needs if len(one.cells) >= min(depth, deepest)]


def _cheapest(cells: NDArray[np.int64], ranks: NDArray[np.int64], found: int, codes_a_cell: float) -> tuple[int, int]:
    """The same for crops of these ranks, of which so many are to be found."""
    choices: list[tuple[float, int, int]] = []
    probes = int(np.sort(cells)[found - 1]) + 1
    while not choices or choices[-1][1] <= cells.max():
        candidates = int(np.sort(ranks[cells < probes])[found - 1]) + 1
        choices.append((probes * codes_a_cell + candidates * _CANDIDATE_CODES, probes, candidates))
        probes = math.ceil(probes * _STEP)
    _, probes, candidates = min(choices)
    return probes, candidates


def _best_by_chance(sample: NDArray[np.float32], crops: int) -> float:
    """About how alike the most similar of so many crops would be if all were of different persons."""
    similarities = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return float(similarities.mean() + similarities.std() * math.sqrt(2 * math.log(crops)))


def _needs(
    codes: CoarseCodes, fine: FineCodes, rows: Rows, row: int, depth: int, among: NDArray[np.bool_] | None
) -> _Needed:
    """What the crop of a row needs as a query."""
    query = as_float32(rows.read(np.array([row])))[0]
    projected = codes.projection.query(query)
    proposed = codes.propose(projected[None], codes.cells, max(4 * depth, _LEAST_PROPOSED), among)[0]
    proposed = proposed[(proposed >= 0) & (proposed != row)]
    fine_ranks = np.empty(len(proposed), np.int64)
    fine_ranks[np.argsort(-fine.similarities(projected, proposed))] = np.arange(len(proposed))
    close = np.flatnonzero(fine_ranks < 2 * depth + _LEAST_COMPARED)
    embeddings = rows.read(proposed[close])
    similarities, order = nearest(query, as_float32(embeddings), None, depth)
    ranks = close[order]
    return _Needed(similarities, codes.cell_ranks(projected, embeddings[order]), ranks, fine_ranks[ranks])


def _interpolated(depth: float, depths: tuple[int, ...], values: tuple[int, ...]) -> int:
    """A value between those of the depths, and beyond the last one as much more as it is deeper; both by logarithm."""
    if depth <= depths[0]:
        return values[0]
    if depth >= depths[-1]:
        return math.ceil(values[-1] * depth / depths[-1])
    after = bisect_right(depths, depth)
    way = math.log(depth / depths[after - 1]) / math.log(depths[after] / depths[after - 1])
    return math.ceil(values[after - 1] * math.pow(values[after] / values[after - 1], way))
