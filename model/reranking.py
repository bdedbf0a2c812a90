"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact and sparse: no matrix over all pairs is held in memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.neighbours import lowest_similarities, nearest

Features = NDArray[np.float32]

_QUERIES_PER_BLOCK = 64
_PAIRS_PER_BLOCK = 1 << 16


def rerank_similarities(
    query: Features, gallery: Features, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> NDArray[np.float32]:
    """Re-ranked similarities `(Q, G)` of L2-normalised features `(Q, D)` and `(G, D)`: higher is more similar.

    `weight` is the paper's lambda: 1 keeps the original distance, 0 uses the Jaccard distance of the k-reciprocal
    neighbourhoods alone. All other symbols are the paper's.
    """
    return np.concatenate(list(reranked_blocks(query, gallery, k1, k2, weight)))


def reranked_blocks(
    query: Features, gallery: Features, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Iterator[NDArray[np.float32]]:
    """The rows of `rerank_similarities` in blocks `(n, G)`, which need not be in memory at once."""
    features = np.concatenate([query, gallery])
    count = min(max(k1 + 1, k2), len(features))
    neighbours = nearest(features, features, count)[1].astype(np.int32)
    # Above 0 even where all features are the same, as distances are divided by it.
    largest = np.maximum(2 - 2 * lowest_similarities(features, features), np.float32(1e-6))
    encodings = _encode(features, neighbours[:, : k1 + 1], largest, k1)
    if k2 > 1:
        encodings = _expand(encodings, neighbours[:, :k2])
    by_column = encodings[len(query) :].tocsc()
    for start in range(0, len(query), _QUERIES_PER_BLOCK):
        rows = slice(start, min(start + _QUERIES_PER_BLOCK, len(query)))
        original = _squared_euclidean(query[rows], gallery) / largest[rows, None]
        jaccard = 1 - _overlap(encodings[rows], by_column)
        yield -(jaccard * np.float32(1 - weight) + original * np.float32(weight)).astype(np.float32, copy=False)


def _squared_euclidean(left: Features, right: Features) -> NDArray[np.float32]:
    """Squared distances `(L, R)` of L2-normalised features."""
    distances: NDArray[np.float32] = np.maximum(2 - 2 * (left @ right.T), 0)
    return distances


def _encode(
    features: Features, neighbours: NDArray[np.int32], largest: NDArray[np.float32], k1: int
) -> sparse.csr_array:
    """Equation 7: each feature as Gaussian weights over its expanded k-reciprocal set; rows sum to 1."""
    own = _reciprocal(neighbours)
    half = _reciprocal(neighbours[:, : round(k1 / 2) + 1])
    # Equation 5: a neighbour's half-size set is added if more than two thirds of it are in the own set.
    shared = (own @ half.T).multiply(own).tocoo()
    is_added = shared.data > 2 / 3 * np.diff(half.indptr)[shared.col]
    added = sparse.csr_array(
        (np.ones(is_added.sum(), dtype=np.float32), (shared.row[is_added], shared.col[is_added])), shape=own.shape
    )
    members = (own + added @ half).tocoo()
    weights = np.empty(members.nnz, dtype=np.float32)
    for start in range(0, members.nnz, _PAIRS_PER_BLOCK):
        pairs = slice(start, start + _PAIRS_PER_BLOCK)
        row, column = members.row[pairs], members.col[pairs]
        cosine = np.einsum("nd,nd->n", features[row], features[column])
        weights[pairs] = np.exp(-np.maximum(2 - 2 * cosine, 0) / largest[row])
    encodings = sparse.csr_array((weights, (members.row, members.col)), shape=own.shape)
    return (sparse.diags_array(1 / encodings.sum(axis=1)) @ encodings).tocsr().astype(np.float32)


def _reciprocal(neighbours: NDArray[np.int32]) -> sparse.csr_array:
    """Equation 3, `(N, N)` of ones: the mutual neighbours of each feature."""
    count, size = neighbours.shape
    near = sparse.csr_array(
        (np.ones(neighbours.size, dtype=np.float32), neighbours.ravel(), np.arange(count + 1) * size),
        shape=(count, count),
    )
    return near.multiply(near.T).tocsr()


def _expand(encodings: sparse.csr_array, neighbours: NDArray[np.int32]) -> sparse.csr_array:
    """Equation 11, local query expansion: the mean of the encodings of each feature's `(N, k2)` nearest."""
    count, k2 = neighbours.shape
    mean = sparse.csr_array(
        (np.full(neighbours.size, 1 / k2, dtype=np.float32), neighbours.ravel(), np.arange(count + 1) * k2),
        shape=encodings.shape,
    )
    return (mean @ encodings).tocsr()


def _overlap(encodings: sparse.csr_array, by_column: sparse.csc_array) -> NDArray[np.float32]:
    """Equation 10: Jaccard similarities `(n, G)` of encodings `(n, N)` with the gallery's `(G, N)`, stored by column.

    Sums minima over the columns that both use, by pairing each entry of a row with the entries of its column.
    """
    rows, size = encodings.shape[0], by_column.shape[0]
    entries = encodings.tocoo()
    starts, ends = by_column.indptr[entries.col], by_column.indptr[entries.col + 1]
    lengths = ends - starts
    offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    positions = offsets + np.arange(lengths.sum())
    smaller = np.minimum(by_column.data[positions], np.repeat(entries.data, lengths))
    cells = by_column.indices[positions] + np.repeat(entries.row.astype(np.int64) * size, lengths)
    shared = np.bincount(cells, smaller, minlength=rows * size).reshape(rows, size).astype(np.float32)
    return shared / (2 - shared)
