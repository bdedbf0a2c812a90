"""How many cells a search looks into and how many crops it compares: measured on the gallery itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.index.coarse_codes import Check, CoarseCodes, Rows
from app.index.nearest import as_float32, nearest
from app.index.tuning import Tuning

DEPTHS = (10, 30, 100, 300, 1000)
"""How many of the most similar crops are asked for in the measurement."""

_QUERIES, _SHALLOW_QUERIES = 200, 800
"""Crops that are asked with: those for all depths, and more for the shallow ones, which few hard queries decide."""

_SHALLOW = 30
_LEAST_PROPOSED = 1_500
_MARGIN = 0.8
"""Of the misses that are allowed, how many the measurement may have: other queries may have more."""

_CANDIDATE_CODES = 250
"""Comparing one crop exactly takes as long as looking at so many codes."""

_LEAST_QUERIES = 50
"""From fewer that have a match, nothing can be learnt."""

_DEEPER = 2
"""Where a filter leaves out a share of the crops at random, the last one wanted may be that much deeper."""

_MORE = 1.5

_STEP = 1.2
"""From one number of cells that is considered to the next."""


@dataclass(frozen=True)
class Need:
    """By depth, how many of the most similar crops are wanted: the cells to look into, the candidates to compare."""

    depths: tuple[int, ...]
    probes: tuple[int, ...]
    candidates: tuple[int, ...]

    def probes_at(self, depth: float) -> int:
        """Cells to look into."""
        return _interpolated(depth, self.depths, self.probes)

    def candidates_at(self, depth: float) -> int:
        """Candidates to compare."""
        return _interpolated(depth, self.depths, self.candidates)


@dataclass(frozen=True)
class Probing:
    """What a search needs to find the share of the most similar crops that it shall find.

    matches: for queries that have a match, one more alike than chance makes any of so many crops; where all crops and
    all parts count. any: for all queries; where a filter leaves crops out, or parts weigh differently. crops: how many
    there were when it was measured.
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
        """Candidates to compare exactly for the same; at least those."""
        if share == 1:
            return max(top_k, self.matches.candidates_at(top_k))
        deeper = math.ceil(self.any.candidates_at(_DEEPER * top_k / share) * share)
        return max(top_k, self.any.candidates_at(top_k), deeper)


def measured(codes: CoarseCodes, rows: Rows, live: NDArray[np.bool_], tuning: Tuning, check: Check) -> Probing:
    """What some crops of the gallery, each as a query, need to find the crops that are most similar to them.

    Truth is what an exact comparison makes of the candidates from all cells, several times as many as are asked for.
    live: a mask of all rows, those that hold crops.
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
        needs.append(_needs(codes, rows, row, depth, among))
    matched = [one for one in needs if one.similarities[0] > chance]
    if len(matched) < _LEAST_QUERIES:
        matched = needs
    least = 1 - (1 - tuning.recall) * _MARGIN
    codes_a_cell = len(codes) / codes.cells

    def need(some: Sequence[_Needed]) -> Need:
        return Need(depths, *_cheapest_at(depths, some, least, codes_a_cell))

    return Probing(need(matched), need(needs), len(crops))


@dataclass(frozen=True, eq=False)
class _Needed:
    """Of the crops most similar to a query: similarities, the ranks of their cells, their own by codes; each `(N,)`."""

    similarities: NDArray[np.float32]
    cells: NDArray[np.int64]
    ranks: NDArray[np.int64]


def _cheapest_at(
    depths: Sequence[int], needs: Sequence[_Needed], least: float, codes_a_cell: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """By depth the cells, and the candidates, that find at least that share for the lowest cost."""
    chosen = []
    deepest = max(len(one.cells) for one in needs)
    for depth in depths:
        deep_enough = [one for one in needs if len(one.cells) >= min(depth, deepest)]
        cells = np.concatenate([one.cells[:depth] for one in deep_enough])
        ranks = np.concatenate([one.ranks[:depth] for one in deep_enough])
        chosen.append(_cheapest(cells, ranks, math.ceil(least * len(cells)), codes_a_cell))
    return tuple(probes for probes, _ in chosen), tuple(candidates for _, candidates in chosen)


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


def _needs(codes: CoarseCodes, rows: Rows, row: int, depth: int, among: NDArray[np.bool_] | None) -> _Needed:
    """What the crop of a row needs as a query."""
    query = as_float32(rows.read(np.array([row])))[0]
    proposed = codes.propose(query, codes.cells, max(4 * depth, _LEAST_PROPOSED), among)
    embeddings = rows.read(proposed[proposed != row])
    similarities, order = nearest(query, as_float32(embeddings), None, depth)
    return _Needed(similarities, codes.cell_ranks(query, embeddings[order]), order)


def _interpolated(depth: float, depths: tuple[int, ...], values: tuple[int, ...]) -> int:
    """A value between those of the depths, and beyond the last one as much more as it is deeper; both by logarithm."""
    within = np.interp(np.log(depth), np.log(depths), np.log(values))
    return math.ceil(float(np.exp(within)) * max(1.0, depth / depths[-1]))
