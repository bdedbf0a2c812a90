"""The projection of embeddings."""

import numpy as np
import pytest
from index_factories import embedding

from app.index.ivf_codes import Projection
from model.architecture import EMBEDDING_DIM


class Sample:
    """Embeddings in memory."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self._embeddings)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._embeddings[rows]


@pytest.mark.parametrize("count", [1, 5, 100, 1_100])
def test_a_projection_keeps_the_variance_of_the_principal_components(count: int) -> None:
    dims = 16
    embeddings = np.stack([embedding(number) for number in range(count)])
    projection = Projection.of(Sample(embeddings), dims, lambda: None)
    products = projection.directions @ projection.directions.T
    assert products == pytest.approx(np.eye(dims), abs=1e-5), "the directions are not orthonormal"

    centred = embeddings.astype(np.float64) - embeddings.astype(np.float64).mean(axis=0)
    most = (np.linalg.svd(centred, compute_uv=False)[:dims] ** 2).sum()
    assert (projection.crops(embeddings).astype(np.float64) ** 2).sum() == pytest.approx(most, rel=1e-3, abs=1e-5)
    assert projection.directions.shape == (dims, EMBEDDING_DIM)
    query = embeddings[0].astype(np.float32)
    assert projection.query(query) == pytest.approx(projection.directions @ query, abs=1e-5)
