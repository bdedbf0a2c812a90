"""The ranked crops of a query: right, wrong or junk, with the similarity of each part."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM, PARTS
from model.datasets.base import NO_CAMERA, EvaluationSplit, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures
from model.metrics import QueryScores, average_precision, cosine_blocks, score_ranking

Order = Literal["worst", "best", "random"]

MAX_JUNK = 3
"""The maximum number of junk crops to list for a query."""


class Verdict(StrEnum):
    """Whether a ranked crop is right. Junk is of the query's person and camera, and does not count."""

    RIGHT = "right"
    WRONG = "wrong"
    JUNK = "junk"


@dataclass(frozen=True)
class RankedCrop:
    """A ranked gallery crop.

    rank: from 1; None for junk. similarity: cosine of the embeddings. parts: cosine of each of the eight parts.
    """

    sample: Sample
    verdict: Verdict
    rank: int | None
    similarity: float
    parts: tuple[float, ...]


@dataclass(frozen=True)
class RankedQuery:
    """A query and its first crops, by decreasing similarity.

    average_precision: by step. first_right: the rank of the first right answer. beyond: that answer, if it is not in
    `crops`. junk_unlisted: the number of junk crops that `crops` omits.
    """

    sample: Sample
    average_precision: float
    right_answers: int
    first_right: int
    crops: tuple[RankedCrop, ...]
    beyond: RankedCrop | None
    junk_unlisted: int


@dataclass(frozen=True)
class Ranking:
    """A split with the features of its crops, `(N, 2048)` each: eight parts.

    Raises DataError for features of another shape.
    """

    split: EvaluationSplit
    query: LabelledFeatures
    gallery: LabelledFeatures

    def __post_init__(self) -> None:
        for side, samples in ((self.query, self.split.query), (self.gallery, self.split.gallery)):
            if side.features.shape != (len(samples), EMBEDDING_DIM):
                raise DataError(
                    f"features of shape {side.features.shape} do not belong to {len(samples)} crops: "
                    f"({len(samples)}, {EMBEDDING_DIM}) is expected"
                )

    def scores(self) -> QueryScores:
        """The scores of every query."""
        query, gallery = self.query, self.gallery
        similarities = cosine_blocks(query.features, gallery.features)
        return score_ranking(similarities, query.pids, query.cameras, gallery.pids, gallery.cameras)

    def ranked(self, query: int, top: int) -> RankedQuery:
        """The first `top` ranks of a query, and up to MAX_JUNK of the junk among them.

        Equal similarities keep the gallery's order. Raises DataError without a right answer.
        """
        similarities = self.gallery.features @ self.query.features[query]
        order = np.argsort(-similarities, kind="stable")
        same = self.gallery.pids[order] == self.query.pids[query]
        camera = self.query.cameras[query]
        junk = same & (self.gallery.cameras[order] == camera) & (camera != NO_CAMERA)
        ranks = np.cumsum(~junk)
        right_ranks = ranks[same & ~junk]
        if not len(right_ranks):
            raise DataError(f"the gallery holds no right answer to {self.split.query[query].path.name}")
        shown = np.arange(np.searchsorted(ranks, min(top, ranks[-1])) + 1)
        listed = shown[~junk[shown] | (np.cumsum(junk)[shown] <= MAX_JUNK)]

        def ranked_crop(position: int) -> RankedCrop:
            crop = int(order[position])
            verdict = Verdict.JUNK if junk[position] else Verdict.RIGHT if same[position] else Verdict.WRONG
            parts = part_cosines(self.query.features[query], self.gallery.features[crop])
            rank = None if junk[position] else int(ranks[position])
            return RankedCrop(self.split.gallery[crop], verdict, rank, float(similarities[crop]), tuple(parts.tolist()))

        return RankedQuery(
            self.split.query[query],
            average_precision(right_ranks)[0],
            len(right_ranks),
            int(right_ranks[0]),
            tuple(ranked_crop(position) for position in listed),
            ranked_crop(int(np.argmax(same & ~junk))) if right_ranks[0] > top else None,
            len(shown) - len(listed),
        )


def part_cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two embeddings `(2048,)` -> `(8,)`: the cosine of each part, independent of part weights."""
    first, second = first.reshape(len(PARTS), -1), second.reshape(len(PARTS), -1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float32] = (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines


def choose_queries(scores: QueryScores, order: Order, count: int, seed: int = 0) -> list[int]:
    """The indices of up to `count` queries with a right answer: the worst or best by average precision, or random.

    At equal precision, queries with more right answers come first.
    """
    answerable = np.flatnonzero(~np.isnan(scores.step))
    if order == "random":
        return sorted(np.random.default_rng(seed).permutation(answerable)[:count].tolist())
    precision = scores.step[answerable]
    ranked = answerable[np.lexsort((-scores.right_answers[answerable], precision if order == "worst" else -precision))]
    return [int(query) for query in ranked[:count]]
