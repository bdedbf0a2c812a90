"""Small factories for the tests of the index."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.index.faiss_index import FaissIndex, Tuning
from app.index.port import Addition, CropColumns, Filter, IndexResult, VectorIndex
from app.index.snapshots import SnapshotStore

MODEL = "mgn-test-0123456789ab"
ANY = Filter()


def embedding(seed: int) -> NDArray[np.float16]:
    """A random embedding `(2048,)` of norm 1, always the same for the same seed."""
    vector = np.random.default_rng(seed).standard_normal(2048)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def crop(
    key: int,
    sequence: int | None = None,
    vector: NDArray[np.float16] | None = None,
    camera: str = "gate",
    at: int = 0,
    track: str | None = None,
    person: str | None = None,
    attributes: str | None = None,
) -> Addition:
    """An addition; by default its sequence is its key, and its embedding is `embedding(key)`."""
    return Addition(
        key if sequence is None else sequence,
        key,
        embedding(key) if vector is None else vector,
        CropColumns(camera, at, track, person, attributes),
    )


def query_for(key: int) -> NDArray[np.float32]:
    """A query that is most similar to the crop with this key."""
    return embedding(key).astype(np.float32)


def keys(found: IndexResult) -> list[int]:
    """The keys of the candidates, best first."""
    return found.keys.tolist()


def ask(index: VectorIndex, query: NDArray[np.float32], crop_filter: Filter, top_k: int) -> IndexResult:
    """The result of one query `(2048,)`."""
    (result,) = index.search(query[None], crop_filter, top_k)
    return result


def assert_equal(one: IndexResult, other: IndexResult) -> None:
    """Fail unless two results are the same in everything."""
    np.testing.assert_array_equal(one.keys, other.keys)
    np.testing.assert_array_equal(one.similarities, other.similarities)
    assert (one.compared, one.gallery_size) == (other.compared, other.gallery_size)


def all_keys(index: VectorIndex, crop_filter: Filter = ANY) -> set[int]:
    """The keys of all crops that a search finds."""
    return set(keys(ask(index, query_for(0), crop_filter, max(index.size, 1))))


def is_found(index: VectorIndex, key: int) -> bool:
    """Whether a search for exactly this crop finds it."""
    return key in keys(ask(index, query_for(key), ANY, 1))


def similarities(query: NDArray[np.float32], additions: Sequence[Addition]) -> NDArray[np.float32]:
    """The dot product of the query with each embedding."""
    return np.stack([addition.embedding for addition in additions]).astype(np.float32) @ query


def having(*pairs: tuple[str, str]) -> Filter:
    """A filter for crops with all of these attributes."""
    return Filter(attributes=frozenset(pairs))


def store_in(folder: Path, keep: int = 2, tuning: Tuning | None = None) -> SnapshotStore:
    """A snapshot store for the index in the process."""
    return SnapshotStore(folder, partial(FaissIndex.restore, tuning=tuning), keep)


GALLERY = [
    crop(1, camera="gate", at=100, track="t1", person="anna", attributes='{"bag":true,"colour":"red","lane":1}'),
    crop(2, camera="gate", at=200, track="t1", attributes='{"colour":"red","lane":"1"}'),
    crop(3, camera="hall", at=200, track="t2", person="bert", attributes='{"colour":"reddish","seen":{"lane":1}}'),
    crop(4, camera="hall", at=300, person="anna", attributes='{"bag":1,"colour":"red","größe":"☃"}'),
    crop(5, camera="yard", at=400, track="t1", person="anna"),
    crop(6, camera="yard", at=500),
]
"""Six crops that differ in all fields that filters test."""
