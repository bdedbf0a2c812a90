"""How well persons are found from each camera in each other camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.metrics import average_precision


@dataclass(frozen=True)
class CameraPair:
    """Queries by one camera, looked for among the crops of another one alone; means over those it can answer."""

    query_camera: int
    gallery_camera: int
    queries: int
    rank1: float
    map_step: float


class CameraPairs:
    """Collects the pairs while the rankings of all queries go by."""

    def __init__(self, gallery_cameras: NDArray[np.int64]) -> None:
        self._cameras = gallery_cameras
        self._scores: dict[tuple[int, int], list[tuple[bool, float]]] = {}

    def put(self, query_camera: int, ranking: NDArray[np.int64], is_right: NDArray[np.bool_]) -> None:
        """A query's ranking down to its last right answer, as positions `(n,)`, and which of these are right."""
        cameras = self._cameras[ranking]
        for camera in np.unique(cameras[is_right]).tolist():
            ranks = np.flatnonzero(is_right[cameras == camera]) + 1
            scores = self._scores.setdefault((int(query_camera), camera), [])
            scores.append((bool(ranks[0] == 1), average_precision(ranks)[0]))

    def table(self) -> tuple[CameraPair, ...]:
        """All pairs that have queries, in the order of their cameras."""
        return tuple(
            CameraPair(*pair, len(scores), *np.mean(scores, axis=0).tolist())
            for pair, scores in sorted(self._scores.items())
        )
