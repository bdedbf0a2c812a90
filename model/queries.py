"""Multi-query averaging and query expansion."""

import numpy as np
from numpy.typing import NDArray

from model.datasets.base import NO_CAMERA
from model.metrics import l2_normalised
from model.neighbours import nearest

Features = NDArray[np.float32]


def multi_query(
    query: Features,
    query_labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    gallery: Features,
    gallery_labels: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Features:
    """`(Q, D)`, L2-normalised: each query as the mean of all crops of its person from its camera, gallery included.

    Zheng et al. (ICCV 2015), section 5. labels: pids and cameras, `(Q,)` and `(G,)` each. The protocol excludes these
    gallery crops from the query's ranking. A query from an unknown camera does not change.
    """
    features = np.concatenate([query, gallery])
    query_keys, gallery_keys = (
        list(zip(pids.tolist(), cameras.tolist(), strict=True)) for pids, cameras in (query_labels, gallery_labels)
    )
    members: dict[tuple[int, int], list[int]] = {}
    for position, key in enumerate([*query_keys, *gallery_keys]):
        members.setdefault(key, []).append(position)
    means = [
        query[number] if camera == NO_CAMERA else features[members[pid, camera]].mean(axis=0)
        for number, (pid, camera) in enumerate(query_keys)
    ]
    return l2_normalised(np.stack(means))


def expand_queries(query: Features, gallery: Features, count: int, alpha: float) -> Features:
    """`(Q, D)`, L2-normalised: each query plus its `count` nearest gallery crops, weighted by similarity ^ alpha.

    Radenovic et al. (arXiv 1711.02512), section 3.4. alpha 0 is plain average query expansion.
    """
    similarities, positions = nearest(query, gallery, min(count, len(gallery)))
    weights = np.maximum(similarities, 0) ** np.float32(alpha)
    expanded = query + np.einsum("qk,qkd->qd", weights, gallery[positions])
    return l2_normalised(expanded)
