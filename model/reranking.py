"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact and sparse: no matrix over all pairs is ever held."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Features = NDArray[np.float32]


def rerank_similarities(
    query: Features, gallery: Features, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> NDArray[np.float32]:
    """Re-ranked similarities `(Q, G)` of L2-normalised features `(Q, D)` and `(G, D)`: higher is more alike.

    `weight` is the paper's lambda: 1 keeps the original distance, 0 uses the Jaccard distance of the k-reciprocal
    neighbourhoods alone. All other symbols are the paper's.
    """
    features = np.concatenate([query, gallery])
    neighbours, largest = _nearest(features, min(max(k1 + 1, k2), len(features)))
    encodings = _encode(features, neighbours[:, : k1 + 1], largest, k1)
    if k2 > 1:
        encodings = _expand(encodings, neighbours[:, :k2])
    result = np.empty((len(query), len(gallery)), dtype=np.float32)
    by_column = encodings.tocsc()
    for row in range(len(query)):
        original = _squared_euclidean(query[row : row + 1], gallery)[0] / largest[row]
        jaccard = 1 - _overlap(encodings, by_column, row)[len(query) :]
        result[row] = -(jaccard * (1 - weight) + original * weight)
    return result


def _nearest(features: Features, count: int, rows: int = 512) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each feature its `count` nearest, nearest first, and its largest squared distance to any."""
    neighbours = np.empty((len(features), count), dtype=np.int64)
    largest = np.empty(len(features), dtype=np.float32)
    for start in range(0, len(features), rows):
        block = slice(start, start + rows)
        all_distances = _squared_euclidean(features[block], features)
        largest[block] = all_distances.max(axis=1)
        near = np.argpartition(all_distances, count - 1, axis=1)[:, :count]
        near_distances = np.take_along_axis(all_distances, near, axis=1)
        order = np.lexsort((near, near_distances), axis=1)
        neighbours[block] = np.take_along_axis(near, order, axis=1)
    return neighbours, largest


def _squared_euclidean(left: Features, right: Features) -> NDArray[np.float32]:
    """Squared distances `(L, R)` of L2-normalised features."""
    distances: NDArray[np.float32] = np.maximum(2 - 2 * (left @ right.T), 0)
    return distances


def _encode(
    features: Features, neighbours: NDArray[np.int64], largest: NDArray[np.float32], k1: int
) -> sparse.csr_matrix:
    """Equation 7: each feature as Gaussian weights over its expanded k-reciprocal set, rows summing to 1."""
    half = round(k1 / 2) + 1
    full_sets = _reciprocal_sets(neighbours)
    half_sets = _reciprocal_sets(neighbours[:, :half])
    indices, weights, ends = [], [], [0]
    for row, own in enumerate(full_sets):
        expanded = [own]
        for candidate in own:
            other = half_sets[candidate]
            if len(np.intersect1d(other, own, assume_unique=True)) > 2 / 3 * len(other):
                expanded.append(other)
        members = np.unique(np.concatenate(expanded))
        distances = _squared_euclidean(features[row : row + 1], features[members])[0] / largest[row]
        gaussian = np.exp(-distances)
        indices.append(members)
        weights.append(gaussian / gaussian.sum())
        ends.append(ends[-1] + len(members))
    return sparse.csr_matrix(
        (np.concatenate(weights), np.concatenate(indices), ends), shape=(len(features), len(features))
    )


def _reciprocal_sets(neighbours: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Equation 3: those of each feature's neighbours that count the feature among their own."""
    reciprocal = (neighbours[neighbours] == np.arange(len(neighbours))[:, None, None]).any(axis=2)
    return [near[mutual] for near, mutual in zip(neighbours, reciprocal, strict=True)]


def _expand(encodings: sparse.csr_matrix, nearest: NDArray[np.int64]) -> sparse.csr_matrix:
    """Equation 11, local query expansion: the mean of the encodings of each feature's `(N, k2)` nearest."""
    count, k2 = nearest.shape
    mean = sparse.csr_matrix(
        (np.full(nearest.size, 1 / k2, dtype=np.float32), nearest.ravel(), np.arange(count + 1) * k2),
        shape=encodings.shape,
    )
    return (mean @ encodings).tocsr()


def _overlap(encodings: sparse.csr_matrix, by_column: sparse.csc_matrix, row: int) -> NDArray[np.float64]:
    """Equation 10: the Jaccard similarity `(N,)` of one encoding with all, through the columns that it uses."""
    own = slice(encodings.indptr[row], encodings.indptr[row + 1])
    columns, weights = encodings.indices[own], encodings.data[own]
    starts, ends = by_column.indptr[columns], by_column.indptr[columns + 1]
    positions = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    smaller = np.minimum(by_column.data[positions], np.repeat(weights, ends - starts))
    shared = np.bincount(by_column.indices[positions], smaller, minlength=encodings.shape[0])
    return shared / (2 - shared)
