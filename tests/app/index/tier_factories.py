"""Indexes in the process that are small and yet have both tiers."""

from pathlib import Path

import numpy as np
from index_factories import MODEL, crop

from app.index.faiss_index import FaissIndex
from app.index.port import Addition
from app.index.tuning import Tuning

SMALL = Tuning(
    exact_limit=40,
    code_dims=16,
    code="SQ8",
    cells=4,
    probes=4,
    candidates=500,
    finalists=500,
    narrow_limit=0,
    sifted_limit=0,
    fresh_limit=10,
)


def index_in(folder: Path, tuning: Tuning = SMALL) -> FaissIndex:
    return FaissIndex(MODEL, folder / "working", tuning)


def coarse_index(folder: Path, count: int = 60, tuning: Tuning = SMALL) -> FaissIndex:
    """An index of crops 1 to `count`, all of them in the coarse tier."""
    index = index_in(folder, tuning)
    index.load([crop(key) for key in range(1, count + 1)], count)
    assert not index.upkeep()
    assert index.coarse_size == count
    return index


def persons(count: int, crops: int, seed: int = 0) -> list[Addition]:
    """Crops of persons, each of whose crops lie close to each other; crop by crop of all persons.

    As in real embeddings, a few hundred directions make up most of what differs.
    """
    rng = np.random.default_rng(seed)
    sizes = (1 + np.arange(2048)) ** -0.7
    centres = rng.standard_normal((count, 2048)) * sizes
    vectors = centres[None] + 0.7 * rng.standard_normal((crops, count, 2048)) * sizes
    vectors = vectors.reshape(-1, 2048)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        crop(key, vector=vector.astype(np.float16), camera=f"camera {key % 50}", at=key)
        for key, vector in enumerate(vectors, start=1)
    ]


def row_files(folder: Path) -> list[Path]:
    """Of each coarse tier, that of its fine codes and that of its embeddings."""
    return sorted((folder / "working").glob("*"))
