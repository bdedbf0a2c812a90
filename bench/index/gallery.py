"""A gallery of embeddings on disk, with queries and the truth about them; without torch, which takes much memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM

EMBEDDINGS, FACTS = "embeddings.f16", "queries.npz"

AT_ONCE = 20_000
"""Embeddings that are looked at, or drawn, together."""


@dataclass(frozen=True)
class Gallery:
    """A gallery on disk with queries and the truth about them.

    embeddings: `(N, 2048)` float16, mapped. queries: `(Q, 2048)` float32, real crops that are not in the gallery. true:
    `(Q, N)`, the rows of the most similar crops, best first.
    """

    folder: Path
    embeddings: NDArray[np.float16]
    queries: NDArray[np.float32]
    true: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "Gallery":
        """One that is there."""
        with np.load(folder / FACTS) as facts:
            embeddings = mapped(folder / EMBEDDINGS, int(facts["crops"]))
            return cls(folder, embeddings, facts["queries"], facts["true"])


def nearest_rows(
    embeddings: NDArray[np.float16], queries: NDArray[np.float32], count: int, among: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """By brute force: the rows most similar to each query, `(Q, count)`, best first. among: only these, ascending."""
    among = np.arange(len(embeddings)) if among is None else among
    best = np.full((len(queries), count), -np.inf, np.float32)
    rows = np.zeros((len(queries), count), np.int64)
    for start in range(0, len(among), AT_ONCE):
        some = among[start : start + AT_ONCE]
        found = queries @ embeddings[some].astype(np.float32).T
        every = np.concatenate([best, found], axis=1)
        every_row = np.concatenate([rows, np.broadcast_to(some, found.shape)], axis=1)
        order = np.argpartition(-every, count - 1, axis=1)[:, :count]
        best, rows = np.take_along_axis(every, order, axis=1), np.take_along_axis(every_row, order, axis=1)
    return np.take_along_axis(rows, np.argsort(-best, axis=1, kind="stable"), axis=1)


def mapped(path: Path, crops: int) -> NDArray[np.float16]:
    """So many embeddings in a file."""
    return np.memmap(path, np.float16, "r", shape=(crops, EMBEDDING_DIM))
