"""Sparse re-ranking equals the dense definition of Zhong et al. (CVPR 2017)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reranking import rerank_similarities


def dense(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Re-ranking by the paper's definitions, with dense matrices."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    count = len(features)
    distances = np.maximum(2 - 2 * features @ features.T, 0)
    distances /= distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    encoding = np.zeros((count, count))
    for i in range(count):
        own = reciprocal(i, k1)
        expanded = set(own)
        for j in own:
            half_set = reciprocal(j, round(k1 / 2))
            if len(half_set & own) > 2 / 3 * len(half_set):
                expanded |= half_set
        members = sorted(expanded)
        encoding[i, members] = np.exp(-distances[i, members])
        encoding[i] /= encoding[i].sum()
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(count)])
    overlap = np.array([np.minimum(encoding[i], encoding).sum(axis=1) for i in range(len(query))])
    jaccard = 1 - overlap / (2 - overlap)
    final = jaccard * (1 - weight) + distances[: len(query)] * weight
    return -final[:, len(query) :]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), k1=st.integers(2, 8), k2=st.integers(1, 4), weight=st.sampled_from([0.0, 0.3, 1.0]))
def test_sparse_equals_dense(seed: int, k1: int, k2: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 16))
    features = centres[rng.integers(0, 6, 40)] + 0.5 * rng.normal(size=(40, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features = features.astype(np.float32)
    ours = rerank_similarities(features[:8], features[8:], k1, k2, weight)
    assert ours == pytest.approx(dense(features[:8], features[8:], k1, k2, weight), abs=2e-4)
