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

_QUERIES = 200
_MARGIN = 0.8
"""Of the misses that are allowed, how many the measurement may have: other queries may have more."""

_CANDIDATE_CODES = 250
"""Comparing one crop exactly takes as long as looking at so many codes."""

_LEAST_QUERIES = 50
"""From fewer that have a match, nothing can be learnt."""

_DEEPER = 2
"""Where a filter leaves out a share of the crops at random, the last one wanted may be that much deeper."""

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
    all parts count. any: for all queries; where a filter leaves crops out, or parts weigh differently.
    """

    matches: Need
    any: Need

    def probes(self, top_k: int, share: float) -> int:
        """Cells to look into for the `top_k` most similar crops of a share of all."""
        return self.matches.probes_at(top_k) if share == 1 else self.any.probes_at(_DEEPER * top_k / share)

    def candidates(self, top_k: int, share: float) -> int:
        """Candidates to compare exactly for the same; at least those."""
        if share == 1:
            return max(top_k, self.matches.candidates_at(top_k))
        deeper = math.ceil(self.any.candidates_at(_DEEPER * top_k / share) * share)
        return max(top_k, self.any.candidates_at(top_k), deeper)


def measured(codes: CoarseCodes, rows: Rows, tuning: Tuning, check: Check) -> Probing:
    """What some crops of the gallery, each as a query, need to find the crops that are most similar to them.

    Truth is what an exact comparison makes of the candidates from all cells, several times as many as are asked for.
    """
    depths = tuple(depth for depth in DEPTHS if depth <= len(rows) // 4) or (DEPTHS[0],)
    rng = np.random.default_rng(len(rows))
    asked = rng.choice(len(rows), min(_QUERIES, len(rows)), replace=False)
    chance = _best_by_chance(as_float32(rows.read(np.sort(asked))), len(rows))
    found = []
    for row in asked.tolist():
        check()
        found.append(_needs(codes, rows, row, depths[-1]))
    similarities, cells, ranks = (np.stack(values) for values in zip(*found, strict=True))
    needs = _Needs(similarities, cells, ranks, len(rows) / codes.cells)
    least = 1 - (1 - tuning.recall) * _MARGIN
    return Probing(*(Need(depths, *needs.cheapest_at(depths, least, best)) for best in (chance, -math.inf)))


@dataclass(frozen=True, eq=False)
class _Needs:
    """Of the crops most similar to some queries, `(Q, N)`: the ranks of their cells, and their own by codes alone."""

    similarities: NDArray[np.float32]
    cells: NDArray[np.int64]
    ranks: NDArray[np.int64]
    codes_a_cell: float

    def cheapest_at(
        self, depths: Sequence[int], least: float, best_above: float
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """By depth what costs least, for queries whose best match is more alike than that: cells, and candidates."""
        chosen = [self._cheapest(depth, least, best_above) for depth in depths]
        return tuple(probes for probes, _ in chosen), tuple(candidates for _, candidates in chosen)

    def _cheapest(self, depth: int, least: float, best_above: float) -> tuple[int, int]:
        count = self.similarities[:, 0] > best_above
        if np.count_nonzero(count) < _LEAST_QUERIES:
            count[:] = True
        cells, ranks = self.cells[count, :depth].reshape(-1), self.ranks[count, :depth].reshape(-1)
        found = math.ceil(least * len(cells))
        choices: list[tuple[float, int, int]] = []
        probes = int(np.sort(cells)[found - 1]) + 1
        while not choices or choices[-1][1] <= cells.max():
            candidates = int(np.sort(ranks[cells < probes])[found - 1]) + 1
            choices.append((probes * self.codes_a_cell + candidates * _CANDIDATE_CODES, probes, candidates))
            probes = math.ceil(probes * _STEP)
        _, probes, candidates = min(choices)
        return probes, candidates


def _best_by_chance(sample: NDArray[np.float32], crops: int) -> float:
    """About how alike the most similar of so many crops would be if all were of different persons."""
    similarities = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return float(similarities.mean() + similarities.std() * math.sqrt(2 * math.log(crops)))


def _needs(
    codes: CoarseCodes, rows: Rows, row: int, depth: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Of the crops most similar to that of a row: similarities, ranks of their cells, their own ranks by codes."""
    query = as_float32(rows.read(np.array([row])))[0]
    proposed = codes.propose(query, codes.cells, 4 * depth, None)
    embeddings = rows.read(proposed[proposed != row])
    similarities, order = nearest(query, as_float32(embeddings), None, depth)
    return similarities, codes.cell_ranks(query, embeddings[order]), order


def _interpolated(depth: float, depths: tuple[int, ...], values: tuple[int, ...]) -> int:
    """A value between those of the depths, and beyond the last one as much more as it is deeper; both by logarithm."""
    within = np.interp(np.log(depth), np.log(depths), np.log(values))
    return math.ceil(float(np.exp(within)) * max(1.0, depth / depths[-1]))
