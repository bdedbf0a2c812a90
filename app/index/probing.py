"""How many cells a search looks into and how many crops it compares: measured on the gallery itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.index.coarse_codes import Check, CoarseCodes, Rows
from app.index.nearest import nearest
from app.index.tuning import Tuning

DEPTHS = (10, 30, 100, 300, 1000)
"""How many of the most similar crops are asked for in the measurement."""

_QUERIES = 200
_MISSED_BY_CELLS, _MISSED_BY_CODES = 0.6, 0.2
"""What share of the misses that are allowed each step may have; the rest is a margin."""


@dataclass(frozen=True)
class Probing:
    """By depth, how many of the most similar crops are wanted: the cells to look into, the candidates to compare."""

    depths: tuple[int, ...]
    probes: tuple[int, ...]
    candidates: tuple[int, ...]

    def probes_for(self, depth: float) -> int:
        """Cells to look into for the `depth` most similar crops, however many of these a filter then leaves out."""
        return _interpolated(depth, self.depths, self.probes)

    def candidates_for(self, top_k: int) -> int:
        """Candidates to compare exactly for the `top_k` most similar crops; at least those."""
        return max(top_k, _interpolated(top_k, self.depths, self.candidates))


def measured(codes: CoarseCodes, rows: Rows, tuning: Tuning, check: Check) -> Probing:
    """What some crops of the gallery, each as a query, need to find the crops that are most similar to them.

    Truth is what an exact comparison makes of the candidates from all cells, several times as many as are asked for.
    """
    depths = tuple(depth for depth in DEPTHS if depth <= len(rows) // 4) or (DEPTHS[0],)
    in_cells: dict[int, list[NDArray[np.int64]]] = {depth: [] for depth in depths}
    in_codes: dict[int, list[NDArray[np.int64]]] = {depth: [] for depth in depths}
    asked = np.random.default_rng(len(rows)).choice(len(rows), min(_QUERIES, len(rows)), replace=False)
    for row in asked.tolist():
        check()
        query = rows.read(np.array([row]))[0].astype(np.float32)
        proposed = codes.propose(query, codes.cells, 4 * depths[-1], None)
        proposed = proposed[proposed != row]
        embeddings = rows.read(proposed)
        _, order = nearest(query, embeddings.astype(np.float32), None, depths[-1])
        ranks = codes.cell_ranks(query, embeddings[order])
        for depth in depths:
            in_cells[depth].append(ranks[:depth])
            in_codes[depth].append(order[:depth])
    missed = 1 - tuning.recall
    return Probing(
        depths,
        tuple(_reaching(in_cells[depth], 1 - missed * _MISSED_BY_CELLS) for depth in depths),
        tuple(_reaching(in_codes[depth], 1 - missed * _MISSED_BY_CODES) for depth in depths),
    )


def _reaching(ranks: list[NDArray[np.int64]], share: float) -> int:
    """How many of the best ranks hold that share of what was found."""
    return int(np.quantile(np.concatenate(ranks), share)) + 1


def _interpolated(depth: float, depths: tuple[int, ...], values: tuple[int, ...]) -> int:
    """A value between those of the depths, and beyond the last one as much more as it is deeper; both by logarithm."""
    within = np.interp(np.log(depth), np.log(depths), np.log(values))
    return int(np.ceil(np.exp(within) * max(1.0, depth / depths[-1])))
