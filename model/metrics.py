"""Re-identification metrics, as pure functions of similarities and labels."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.datasets.base import NO_CAMERA

Similarities = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """Means over the queries that have a right answer, as fractions of 1.

    queries: the number of these queries. unanswerable: the number of queries without a right answer.
    rank1, rank5, rank10, rank20: share of queries with a right answer in the first 1, 5, 10, 20 ranks (CMC).
    map_step, map_trapezoid: the two usual mean average precisions, see `average_precision`.
    minp: mean inverse negative penalty, right answers / rank of the last one (Ye et al., arXiv 2001.04193).
    """

    queries: int
    unanswerable: int
    rank1: float
    rank5: float
    rank10: float
    rank20: float
    map_step: float
    map_trapezoid: float
    minp: float

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class QueryScores:
    """The scores of each query, `(Q,)` each; NaN for queries without a right answer.

    first: the rank of the first right answer. step, trapezoid: average precisions. minp: number of right answers / rank
    of the last one. right_answers: the number of right answers.
    """

    first: NDArray[np.float64]
    step: NDArray[np.float64]
    trapezoid: NDArray[np.float64]
    minp: NDArray[np.float64]
    right_answers: NDArray[np.int64]

    def cmc(self, ranks: int) -> NDArray[np.float64]:
        """`(ranks,)`: the share of answerable queries with a right answer among the first 1, 2, ..."""
        first = self.first[~np.isnan(self.first)]
        if not len(first):
            return np.full(ranks, np.nan)
        return np.asarray((first[:, None] <= np.arange(1, ranks + 1)).mean(axis=0))

    def means(self) -> Metrics:
        """The metrics over all queries."""
        answerable = ~np.isnan(self.first)
        first = self.first[answerable]
        return Metrics(
            queries=int(answerable.sum()),
            unanswerable=int((~answerable).sum()),
            rank1=_mean(first <= 1),
            rank5=_mean(first <= 5),
            rank10=_mean(first <= 10),
            rank20=_mean(first <= 20),
            map_step=_mean(self.step[answerable]),
            map_trapezoid=_mean(self.trapezoid[answerable]),
            minp=_mean(self.minp[answerable]),
        )


def average_precision(ranks: NDArray[np.int64]) -> tuple[float, float]:
    """Average precision of right answers at `ranks` (from 1, ascending): by step and by trapezoid.

    Step: the mean of the precisions i / rank_i. Trapezoid (the official Market-1501 code): each precision is averaged
    with the precision one rank before, (i - 1) / (rank_i - 1), which counts as 1 at rank 1.

    >>> step, trapezoid = average_precision(np.array([1, 2, 4, 7]))
    >>> round(step, 4), round(trapezoid, 4)
    (0.8304, 0.811)
    """
    hits = np.arange(1, len(ranks) + 1)
    precision = hits / ranks
    before = np.divide(hits - 1, ranks - 1, out=np.ones(len(ranks)), where=ranks > 1)
    return float(precision.mean()), float(((precision + before) / 2).mean())


class GroundTruth:
    """The right answers to each query in a gallery, and the crops excluded from its ranking."""

    def __init__(self, gallery_pids: Labels, gallery_cameras: Labels) -> None:
        self.cameras = gallery_cameras
        order = np.argsort(gallery_pids, kind="stable")
        pids, starts = np.unique(gallery_pids[order], return_index=True)
        self._of_person = dict(zip(pids.tolist(), np.split(order, starts[1:]), strict=True))
        self._empty = np.empty(0, dtype=np.int64)

    def of(self, pid: int, camera: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the right answers, and of excluded crops: of the same person from the same known camera."""
        own = self._of_person.get(int(pid), self._empty)
        excluded = (self.cameras[own] == camera) & (camera != NO_CAMERA)
        return own[~excluded], own[excluded]


class QueryRanking(NamedTuple):
    """One query's ranking, by decreasing similarity; equal similarities keep the gallery's order.

    similarities: `(G,)`. right, excluded: see GroundTruth. ranking: positions in the gallery down to the last right
    answer, without excluded crops. is_right: whether each of them is a right answer, `(len(ranking),)`.
    """

    similarities: Similarities
    right: NDArray[np.int64]
    excluded: NDArray[np.int64]
    ranking: NDArray[np.int64]
    is_right: NDArray[np.bool_]

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The ranks (from 1, ascending) of the right answers."""
        return np.flatnonzero(self.is_right) + 1


def rank_queries(
    similarities: Iterable[Similarities],
    query_pids: Labels,
    query_cameras: Labels,
    gallery_pids: Labels,
    gallery_cameras: Labels,
) -> Iterator[QueryRanking]:
    """Rank the gallery for each query.

    similarities: blocks `(n, G)`, in total one row for each query. The labels are `(Q,)` and `(G,)`.
    """
    truth = GroundTruth(gallery_pids, gallery_cameras)
    is_right = np.zeros(len(gallery_pids), dtype=bool)
    for query, row in enumerate(row for block in similarities for row in block):
        right, excluded = truth.of(query_pids[query], query_cameras[query])
        ranking = _ranking_to_last_right_answer(row, right, excluded)
        is_right[right] = True
        yield QueryRanking(row, right, excluded, ranking, is_right[ranking])
        is_right[right] = False


def score_ranking(
    similarities: Iterable[Similarities],
    query_pids: Labels,
    query_cameras: Labels,
    gallery_pids: Labels,
    gallery_cameras: Labels,
) -> QueryScores:
    """The scores of each query, from the arguments of `rank_queries`."""
    table = ScoreTable(len(query_pids))
    ranked_queries = rank_queries(similarities, query_pids, query_cameras, gallery_pids, gallery_cameras)
    for number, ranked in enumerate(ranked_queries):
        table.add(number, ranked.ranks)
    return table.scores()


class ScoreTable:
    """Collects the scores of queries."""

    def __init__(self, queries: int) -> None:
        self._rows = np.full((4, queries), np.nan)
        self._right_answers = np.zeros(queries, np.int64)

    def add(self, query: int, ranks: NDArray[np.int64]) -> None:
        """Add a query by the ranks (from 1, ascending) of its right answers, if it has any."""
        if len(ranks):
            self._rows[:, query] = (ranks[0], *average_precision(ranks), len(ranks) / ranks[-1])
            self._right_answers[query] = len(ranks)

    def scores(self) -> QueryScores:
        """The scores of all queries."""
        first, step, trapezoid, minp = self._rows
        return QueryScores(first, step, trapezoid, minp, self._right_answers)


def _ranking_to_last_right_answer(
    similarities: Similarities, right: NDArray[np.int64], excluded: NDArray[np.int64]
) -> NDArray[np.int64]:
    if not len(right):
        return right
    candidates = np.flatnonzero(similarities >= similarities[right].min())
    if len(excluded):
        candidates = np.setdiff1d(candidates, excluded, assume_unique=True)
    return candidates[np.argsort(-similarities[candidates], kind="stable")]


def cosine_blocks(query: NDArray[np.float32], gallery: NDArray[np.float32], rows: int = 256) -> Iterator[Similarities]:
    """Cosine similarities of L2-normalised `(Q, D)` and `(G, D)`, `rows` queries at a time."""
    for start in range(0, len(query), rows):
        yield query[start : start + rows] @ gallery.T


def l2_normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(N, D)` with rows of norm 1; rows of zeros stay zeros."""
    unit: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit


def _mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
