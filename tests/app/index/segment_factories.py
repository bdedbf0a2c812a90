"""Galleries that need a segment, and small indexes that have one."""

from collections.abc import Sequence

import numpy as np

from app.index.faiss_index import FaissIndex, Tuning
from app.index.port import Addition
from tests.app.index.index_factories import MODEL, crop

SMALL = Tuning(exact_limit=40, flush_rows=10)


def index_of(gallery: Sequence[Addition], tuning: Tuning = SMALL) -> FaissIndex:
    """An index that is built from a gallery, as from the rows of a database."""
    index = FaissIndex(MODEL, tuning)
    if index.sample_size(len(gallery)):
        sample = np.random.default_rng(0).permutation(len(gallery))[: index.sample_size(len(gallery))]
        index.prepare(np.stack([gallery[row].embedding for row in sample]), len(gallery))
    index.load(gallery, max((addition.sequence for addition in gallery), default=0))
    index.maintain()
    return index


def index_with_segment(count: int = 60) -> FaissIndex:
    """An index of crops 1 to `count`, all of them in the segment."""
    index = index_of([crop(key) for key in range(1, count + 1)])
    assert index.segment_size == count
    return index


def persons(count: int, crops: int, seed: int = 0) -> list[Addition]:
    """Clustered embeddings: `crops` of each of `count` persons, ordered by crop, then by person.

    As with real embeddings, a few hundred directions have most of the variance.
    """
    rng = np.random.default_rng(seed)
    sizes = (1 + np.arange(2048, dtype=np.float32)) ** np.float32(-0.7)
    centres = rng.standard_normal((count, 2048), np.float32)
    vectors = rng.standard_normal((crops, count, 2048), np.float32)
    vectors *= np.float32(0.7)
    vectors = ((vectors + centres) * sizes).reshape(-1, 2048)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        crop(key, vector=vector.astype(np.float16), camera=f"camera {key % 50}", at=key)
        for key, vector in enumerate(vectors, start=1)
    ]
