"""Metrics by pair of query camera and gallery camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.metrics import average_precision


@dataclass(frozen=True)
class CameraPair:
    """Metrics of the queries from one camera against the gallery crops from another.

    queries: the number of these queries with a right answer there. rank1, map_step: their means, as fractions of 1.
    """

    query_camera: int
    gallery_camera: int
    queries: int
    rank1: float
    map_step: float


class CameraPairs:
    """Collects the metrics of all camera pairs, query by query."""

    def __init__(self, gallery_cameras: NDArray[np.int64]) -> None:
        self._cameras = gallery_cameras
        self._scores: dict[tuple[int, int], list[tuple[bool, float]]] = {}

    def add(self, query_camera: int, ranking: NDArray[np.int64], is_right: NDArray[np.bool_]) -> None:
        """Add a query's ranking: gallery positions `(n,)` down to its last right answer, and whether each is right."""
        cameras = self._cameras[ranking]
        for camera in np.unique(cameras[is_right]).tolist():
            ranks = np.flatnonzero(is_right[cameras == camera]) + 1
            scores = self._scores.setdefault((int(query_camera), camera), [])
            scores.append((bool(ranks[0] == 1), average_precision(ranks)[0]))

    def table(self) -> tuple[CameraPair, ...]:
        """All pairs with queries, sorted by camera."""
        return tuple(
            CameraPair(*pair, len(scores), *np.mean(scores, axis=0).tolist())
            for pair, scores in sorted(self._scores.items())
        )
