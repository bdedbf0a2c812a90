"""Multi-query averaging and query expansion."""

import numpy as np
from numpy.typing import NDArray

from model.datasets.base import NO_CAMERA
from model.neighbours import nearest

Features = NDArray[np.float32]


def multi_query(
    query: Features,
    query_labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    gallery: Features,
    gallery_labels: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Features:
    """`(Q, D)`: each query as the mean of all crops of its person by its camera, in query and gallery, L2-normalised.

    labels: pids and cameras. Zheng et al. (ICCV 2015), section 5. The protocol excludes these crops of the gallery from
    the query's ranking. A query of an unknown camera does not change.
    """
    features = np.concatenate([query, gallery])
    keys = [list(zip(pids.tolist(), cameras.tolist(), strict=True)) for pids, cameras in (query_labels, gallery_labels)]
    members: dict[tuple[int, int], list[int]] = {}
    for position, key in enumerate([*keys[0], *keys[1]]):
        members.setdefault(key, []).append(position)
    means = [
        query[number] if key[1] == NO_CAMERA else features[members[key]].mean(axis=0)
        for number, key in enumerate(keys[0])
    ]
    return _unit(np.stack(means))


def expand_queries(query: Features, gallery: Features, count: int, alpha: float) -> Features:
    """`(Q, D)`: each query as the mean of itself and its `count` nearest gallery crops, those by similarity ^ alpha.

    Radenovic et al. (arXiv 1711.02512), section 3.4. L2-normalised; alpha 0 is plain average query expansion.
    """
    similarities, found = nearest(query, gallery, min(count, len(gallery)))
    weights = np.maximum(similarities, 0) ** np.float32(alpha)
    expanded = query + np.einsum("qk,qkd->qd", weights, gallery[found])
    return _unit(expanded)


def _unit(features: Features) -> Features:
    unit: Features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit
