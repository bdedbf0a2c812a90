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
from model.metrics import average_precision, cosine_blocks, ranks_of_right_answers

Order = Literal["worst", "best", "random"]

MOST_JUNK = 3
"""The maximum number of junk crops to list for a query."""


class Verdict(StrEnum):
    """Whether a ranked crop is right. Junk shows the query's person by the query's camera and does not count."""

    RIGHT = "right"
    WRONG = "wrong"
    JUNK = "junk"


@dataclass(frozen=True)
class Found:
    """A ranked gallery crop; junk has no rank. parts: the cosines of the eight parts; their mean is `similarity`."""

    sample: Sample
    verdict: Verdict
    rank: int | None
    similarity: float
    parts: tuple[float, ...]


@dataclass(frozen=True)
class RankedQuery:
    """A query and its first crops, by decreasing similarity.

    average_precision: by step. first_right: the rank of the first right answer. beyond: that answer, if it is not in
    `found`. junk_unlisted: the number of junk crops that `found` omits.
    """

    sample: Sample
    average_precision: float
    right_answers: int
    first_right: int
    found: tuple[Found, ...]
    beyond: Found | None
    junk_unlisted: int


@dataclass(frozen=True)
class Scores:
    """Each query's average precision (step), rank of its first right answer and number of right answers, `(Q,)`.

    The first two are NaN for a query without right answers.
    """

    average_precision: NDArray[np.float64]
    first_rank: NDArray[np.float64]
    right_answers: NDArray[np.int64]

    def cmc(self, ranks: int) -> NDArray[np.float64]:
        """`(ranks,)`: the share of answerable queries with a right answer among the first 1, 2, ..."""
        first = self.first_rank[~np.isnan(self.first_rank)]
        if not len(first):
            return np.full(ranks, np.nan)
        return np.asarray((first[:, None] <= np.arange(1, ranks + 1)).mean(axis=0))


@dataclass(frozen=True)
class Ranking:
    """The features of a split in the order of its crops, `(N, 2048)` each: eight parts."""

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

    def scores(self) -> Scores:
        """The scores of every query."""
        precision = np.full(len(self.query.pids), np.nan)
        first, counts, query = precision.copy(), np.zeros(len(precision), np.int64), 0
        for block in cosine_blocks(self.query.features, self.gallery.features):
            for row in block:
                ranks = self._right_ranks(query, row)
                counts[query] = len(ranks)
                if len(ranks):
                    precision[query], first[query] = average_precision(ranks)[0], ranks[0]
                query += 1
        return Scores(precision, first, counts)

    def ranked(self, query: int, top: int) -> RankedQuery:
        """The first `top` counted crops of a query, and the junk among them. Raises DataError without a right answer.

        Equal similarities keep the gallery's order.
        """
        similarities = self.gallery.features @ self.query.features[query]
        right_ranks = self._right_ranks(query, similarities)
        if not len(right_ranks):
            raise DataError(f"the gallery holds no right answer to {self.split.query[query].path.name}")
        order = np.argsort(-similarities, kind="stable")
        same = self.gallery.pids[order] == self.query.pids[query]
        camera = self.query.cameras[query]
        junk = same & (self.gallery.cameras[order] == camera) & (camera != NO_CAMERA)
        ranks = np.cumsum(~junk)
        shown = np.arange(np.searchsorted(ranks, min(top, ranks[-1])) + 1)
        listed = shown[~junk[shown] | (np.cumsum(junk)[shown] <= MOST_JUNK)]

        def found(place: int) -> Found:
            crop = int(order[place])
            verdict = Verdict.JUNK if junk[place] else Verdict.RIGHT if same[place] else Verdict.WRONG
            parts = part_cosines(self.query.features[query], self.gallery.features[crop])
            rank = None if junk[place] else int(ranks[place])
            return Found(self.split.gallery[crop], verdict, rank, float(similarities[crop]), tuple(parts.tolist()))

        return RankedQuery(
            self.split.query[query],
            average_precision(right_ranks)[0],
            len(right_ranks),
            int(right_ranks[0]),
            tuple(found(place) for place in listed),
            found(int(np.argmax(same & ~junk))) if right_ranks[0] > top else None,
            len(shown) - len(listed),
        )

    def _right_ranks(self, query: int, similarities: NDArray[np.float32]) -> NDArray[np.int64]:
        return ranks_of_right_answers(
            similarities,
            int(self.query.pids[query]),
            int(self.query.cameras[query]),
            self.gallery.pids,
            self.gallery.cameras,
        )


def part_cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two embeddings `(2048,)` -> `(8,)`: the cosine of each part, independent of part weights."""
    first, second = one.reshape(len(PARTS), -1), other.reshape(len(PARTS), -1)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float32] = (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines


def choose_queries(scores: Scores, order: Order, count: int, seed: int = 0) -> list[int]:
    """The numbers of up to `count` answerable queries: the worst or best by average precision, or random ones.

    At equal precision, queries with more right answers come first.
    """
    answerable = np.flatnonzero(~np.isnan(scores.average_precision))
    if order == "random":
        return sorted(np.random.default_rng(seed).permutation(answerable)[:count].tolist())
    precision = scores.average_precision[answerable]
    ranked = answerable[np.lexsort((-scores.right_answers[answerable], precision if order == "worst" else -precision))]
    return [int(query) for query in ranked[:count]]
