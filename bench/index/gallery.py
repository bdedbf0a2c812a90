"""A gallery of embeddings on disk, with queries and their ground truth. Does not import torch, to save memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM

EMBEDDINGS, QUERIES = "embeddings.f16", "queries.npz"

CHUNK_ROWS = 20_000
"""Embeddings that are compared or drawn at a time."""


@dataclass(frozen=True)
class Gallery:
    """A gallery on disk with queries and their ground truth.

    embeddings: `(N, 2048)` float16, memory-mapped. queries: `(Q, 2048)` float32, real crops that are not in the
    gallery. true: `(Q, N)`, the rows of the most similar crops, best first.
    """

    folder: Path
    embeddings: NDArray[np.float16]
    queries: NDArray[np.float32]
    true: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "Gallery":
        """Open an existing gallery."""
        with np.load(folder / QUERIES) as file:
            embeddings = mapped(folder / EMBEDDINGS, int(file["crops"]))
            return cls(folder, embeddings, file["queries"], file["true"])


def nearest_rows(
    embeddings: NDArray[np.float16], queries: NDArray[np.float32], count: int, selected: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The rows most similar to each query by brute force, `(Q, count)`, best first.

    selected: ascending rows to compare, or None for all.
    """
    selected = np.arange(len(embeddings)) if selected is None else selected
    best = np.full((len(queries), count), -np.inf, np.float32)
    rows = np.zeros((len(queries), count), np.int64)
    for start in range(0, len(selected), CHUNK_ROWS):
        chunk = selected[start : start + CHUNK_ROWS]
        similarities = queries @ embeddings[chunk].astype(np.float32).T
        merged = np.concatenate([best, similarities], axis=1)
        merged_rows = np.concatenate([rows, np.broadcast_to(chunk, similarities.shape)], axis=1)
        order = np.argpartition(-merged, count - 1, axis=1)[:, :count]
        best, rows = np.take_along_axis(merged, order, axis=1), np.take_along_axis(merged_rows, order, axis=1)
    return np.take_along_axis(rows, np.argsort(-best, axis=1, kind="stable"), axis=1)


def mapped(path: Path, crops: int) -> NDArray[np.float16]:
    """The embeddings of a file, memory-mapped."""
    return np.memmap(path, np.float16, "r", shape=(crops, EMBEDDING_DIM))
