"""Small indexes that have a segment."""

from pathlib import Path

import numpy as np
from index_factories import MODEL, crop

from app.index.faiss_index import FaissIndex
from app.index.port import Addition
from app.index.tuning import Tuning

SMALL = Tuning(
    exact_limit=40,
    pca_dims=16,
    code="SQ8",
    nlist=4,
    nprobe=4,
    candidates=500,
    refined=500,
    exact_filter_limit=0,
    refine_filter_limit=0,
    flush_limit=10,
)


def index_in(folder: Path, tuning: Tuning = SMALL) -> FaissIndex:
    return FaissIndex(MODEL, folder / "working", tuning)


def index_with_segment(folder: Path, count: int = 60, tuning: Tuning = SMALL) -> FaissIndex:
    """An index of crops 1 to `count`, all of them in the segment."""
    index = index_in(folder, tuning)
    index.load([crop(key) for key in range(1, count + 1)], count)
    assert not index.maintain()
    assert index.segment_size == count
    return index


def persons(count: int, crops: int, seed: int = 0) -> list[Addition]:
    """Clustered embeddings: `crops` of each of `count` persons, ordered by crop, then by person.

    As with real embeddings, a few hundred directions have most of the variance.
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
    """The files of all segments: for each, its SQ8 codes, then its embeddings."""

    return sorted((folder / "working").glob("*"))
