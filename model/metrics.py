"""Re-identification metrics, as pure functions of similarities and labels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Similarities = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """Means over the queries that have a right answer, as fractions of 1.

    queries: how many those are; unanswerable: queries left out, as the gallery holds no right answer to them.
    rank1, rank5, rank10: share of queries with a right answer among the first 1, 5, 10 (CMC).
    map_step, map_trapezoid: the two usual mean average precisions, see `average_precision`.
    minp: mean inverse negative penalty, right answers / rank of the last one (Ye et al., arXiv 2001.04193).
    """

    queries: int
    unanswerable: int
    rank1: float
    rank5: float
    rank10: float
    map_step: float
    map_trapezoid: float
    minp: float

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def average_precision(ranks: NDArray[np.int64]) -> tuple[float, float]:
    """Average precision of right answers at `ranks` (from 1, ascending): by step and by trapezoid.

    Step: mean of i / rank_i. Trapezoid (the official Market-1501 code): each precision is averaged with that just
    before the right answer, (i - 1) / (rank_i - 1), which is 1 at rank 1.

    >>> step, trapezoid = average_precision(np.array([1, 2, 4, 7]))
    >>> round(step, 4), round(trapezoid, 4)
    (0.8304, 0.811)
    """
    found = np.arange(1, len(ranks) + 1)
    precision = found / ranks
    before = np.divide(found - 1, ranks - 1, out=np.ones(len(ranks)), where=ranks > 1)
    return float(precision.mean()), float(((precision + before) / 2).mean())


def ranks_of_right_answers(
    similarity: Similarities,
    query_pid: int,
    query_camera: int,
    gallery_pids: Labels,
    gallery_cameras: Labels,
) -> NDArray[np.int64]:
    """The ranks (from 1, ascending) of one query's right answers among its `(G,)` similarities, highest first.

    Gallery crops of the same person by the same camera do not count. Equal similarities keep the gallery's order.
    """
    same_person = gallery_pids == query_pid
    same_camera = gallery_cameras == query_camera
    valid = similarity[~(same_person & same_camera)]
    right = np.flatnonzero(same_person[~(same_person & same_camera)])
    ascending = np.sort(valid)
    higher = len(valid) - np.searchsorted(ascending, valid[right], side="right")
    ties = np.searchsorted(ascending, valid[right], side="right") - np.searchsorted(
        ascending, valid[right], side="left"
    )
    for position in np.flatnonzero(ties > 1):
        at = right[position]
        higher[position] += np.count_nonzero(valid[:at] == valid[at])
    return np.sort(higher + 1)


def evaluate_ranking(
    similarities: Iterator[Similarities],
    query_pids: Labels,
    query_cameras: Labels,
    gallery_pids: Labels,
    gallery_cameras: Labels,
) -> Metrics:
    """Metrics of a ranking; `similarities` gives blocks of rows `(n, G)` that together are one row a query."""
    first, steps, trapezoids, inverse_penalties = [], [], [], []
    unanswerable = query = 0
    for block in similarities:
        for row in block:
            ranks = ranks_of_right_answers(row, query_pids[query], query_cameras[query], gallery_pids, gallery_cameras)
            query += 1
            if not len(ranks):
                unanswerable += 1
                continue
            step, trapezoid = average_precision(ranks)
            first.append(ranks[0])
            steps.append(step)
            trapezoids.append(trapezoid)
            inverse_penalties.append(len(ranks) / ranks[-1])
    best = np.array(first)
    return Metrics(
        queries=len(first),
        unanswerable=unanswerable,
        rank1=_mean(best <= 1),
        rank5=_mean(best <= 5),
        rank10=_mean(best <= 10),
        map_step=_mean(np.array(steps)),
        map_trapezoid=_mean(np.array(trapezoids)),
        minp=_mean(np.array(inverse_penalties)),
    )


def cosine_blocks(query: NDArray[np.float32], gallery: NDArray[np.float32], rows: int = 256) -> Iterator[Similarities]:
    """Cosine similarities of L2-normalised `(Q, D)` and `(G, D)`, `rows` queries at a time."""
    for start in range(0, len(query), rows):
        yield query[start : start + rows] @ gallery.T


def _mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
