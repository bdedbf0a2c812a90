"""An IVF index of short codes in memory, which gives the candidates of a search."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from app.index.nearest import all_similarities, as_float32
from app.index.row_numbers import CHUNK_ROWS, chunks, sample_rows
from app.index.tuning import Tuning
from model.architecture import EMBEDDING_DIM

Check = Callable[[], None]
"""Called regularly during long work; raises an exception to cancel it."""

_PROJECTION_SAMPLE = 40_000
_ROWS_PER_CENTROID = 40  # about the least that FAISS asks for
_KMEANS_ITERATIONS = 8
_SEED = 1804

# Names of files in snapshots.
_CODES_FILE = "codes.faiss"
_PROJECTION_FILE = "projection.npz"

_ONE_QUERY = 11
"""The `implem` of FAISS's fast-scan indexes that is fastest for one query; FAISS's default is another one."""


class EmbeddingRows(Protocol):
    """Embeddings by row number."""

    def __len__(self) -> int:
        """Number of rows."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Embeddings of ascending rows, `(N, 2048)`."""


@dataclass(frozen=True)
class Projection:
    """PCA with a random rotation: `directions` `(D, 2048)`, `offset` `(D,)` the projection of the mean.

    The rotation spreads variance evenly over the dimensions, as codes with the same number of bits a dimension need. A
    query is projected but not centred: centring would change its similarities by different amounts.
    """

    directions: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def of(cls, sample: EmbeddingRows, dims: int, check: Check) -> Self:
        """Fit to a sample of embeddings."""
        total = np.zeros(EMBEDDING_DIM, np.float64)
        products = np.zeros((EMBEDDING_DIM, EMBEDDING_DIM), np.float32)
        for rows in chunks(sample_rows(len(sample), _PROJECTION_SAMPLE), CHUNK_ROWS):
            check()
            embeddings = as_float32(sample.read(rows))
            total += embeddings.sum(axis=0)
            products += embeddings.T @ embeddings
        count = min(len(sample), _PROJECTION_SAMPLE)
        mean = total / count
        covariance = products.astype(np.float64) / count - np.outer(mean, mean)
        rotation, _ = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dims, dims)))
        directions = np.ascontiguousarray((_principal_directions(covariance, count, dims) @ rotation).T, np.float32)
        return cls(directions, (directions @ mean).astype(np.float32))

    @property
    def dims(self) -> int:
        """D, the number of directions."""
        return len(self.directions)

    def crops(self, embeddings: NDArray[np.float16]) -> NDArray[np.float32]:
        """Project embeddings `(N, 2048)` to `(N, D)`."""
        projected: NDArray[np.float32] = as_float32(embeddings) @ self.directions.T
        projected -= self.offset
        return projected

    def query(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project a query `(2048,)` to `(D,)`."""
        return all_similarities(query, self.directions)


class IvfCodes:
    """Codes by row number. Not thread-safe: either several readers, or one writer."""

    def __init__(self, projection: Projection, index: Any) -> None:
        self.projection = projection
        self._index = index
        if isinstance(index, faiss.IndexIVFFastScan):
            index.implem = _ONE_QUERY

    @classmethod
    def train(cls, rows: EmbeddingRows, tuning: Tuning, check: Check) -> Self:
        """An empty index, trained on these embeddings and with lists for this number of them."""
        projection = Projection.of(rows, tuning.pca_dims, check)
        nlist = min(tuning.nlist_for(len(rows)), len(rows))
        sample = np.concatenate(
            [
                projection.crops(rows.read(chunk))
                for chunk in chunks(sample_rows(len(rows), _ROWS_PER_CENTROID * nlist), CHUNK_ROWS)
            ]
        )
        check()
        index: Any = faiss.index_factory(tuning.pca_dims, f"IVF{nlist},{tuning.code}", faiss.METRIC_INNER_PRODUCT)
        index.quantizer.add(_centroids(sample, nlist, check))
        index.train(sample)
        return cls(projection, index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nlist(self) -> int:
        """Number of inverted lists."""
        return int(self._index.nlist)

    def add(self, rows: NDArray[np.int64], projected: NDArray[np.float32]) -> None:
        """Add rows that have no code, by their projections `(N, D)`.

        FAISS assigns the lists. `add_core`, which takes the lists as an argument, silently writes wrong codes for
        fast-scan indexes.
        """
        self._index.add_with_ids(projected, rows)

    def remove(self, deleted: NDArray[np.bool_]) -> None:
        """Remove the codes of rows, given as a mask of all rows."""
        bits = np.packbits(deleted, bitorder="little")
        self._index.remove_ids(faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)))

    def search(
        self, queries: NDArray[np.float32], nprobe: int, candidates: int, selected: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """The rows `(N, candidates)` most similar to projected queries `(N, D)`, best first, padded with -1.

        nprobe: number of lists to search. selected: mask of the rows to search, or None for all.
        """
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = min(nprobe, self.nlist)
        if selected is not None:
            bits = np.packbits(selected, bitorder="little")
            parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        rows: NDArray[np.int64] = self._index.search(queries, candidates, params=parameters)[1]
        return rows

    def list_ranks(self, query: NDArray[np.float32], embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """For each of embeddings `(N, 2048)`, the rank of its list, from 0, in the order in which a query searches."""
        _, order = self._index.quantizer.search(query[None], self.nlist)
        ranks = np.empty(self.nlist, np.int64)
        ranks[order[0]] = np.arange(self.nlist)
        _, lists = self._index.quantizer.search(self.projection.crops(embeddings), 1)
        of_embeddings: NDArray[np.int64] = ranks[lists[:, 0]]
        return of_embeddings

    def save(self, folder: Path) -> None:
        """Write files into a folder."""
        np.savez(folder / _PROJECTION_FILE, directions=self.projection.directions, offset=self.projection.offset)
        faiss.write_index(self._index, str(folder / _CODES_FILE))

    @classmethod
    def restore(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises OSError, ValueError, KeyError, BadZipFile or RuntimeError if the folder holds something else.
        """
        with np.load(folder / _PROJECTION_FILE, allow_pickle=False) as file:
            projection = Projection(file["directions"], file["offset"])
        return cls(projection, faiss.read_index(str(folder / _CODES_FILE)))


def _principal_directions(covariance: NDArray[np.float64], rank: int, dims: int) -> NDArray[np.float64]:
    """The eigenvectors `(N, dims)` of the largest eigenvalues of a matrix `(N, N)` whose rank is at most `rank`."""
    width = rank + dims
    if 2 * width > len(covariance):
        return np.linalg.eigh(covariance).eigenvectors[:, ::-1][:, :dims]
    # Products with this many random vectors span the image of the matrix, so its eigenvectors lie in that subspace.
    random_vectors = np.random.default_rng(_SEED).standard_normal((len(covariance), width))
    subspace = np.linalg.qr(covariance @ random_vectors).Q
    within = np.linalg.eigh(subspace.T @ covariance @ subspace).eigenvectors[:, ::-1]
    directions: NDArray[np.float64] = subspace @ within[:, :dims]
    return directions


def _centroids(sample: NDArray[np.float32], nlist: int, check: Check) -> NDArray[np.float32]:
    """Spherical k-means, whose lists are more even for inner products; `check` runs before each iteration."""
    one_iteration: Any = faiss.Kmeans(
        sample.shape[1], nlist, niter=1, spherical=True, seed=_SEED, min_points_per_centroid=1
    )
    for _ in range(_KMEANS_ITERATIONS):
        check()
        one_iteration.train(sample, init_centroids=one_iteration.centroids)
    centroids: NDArray[np.float32] = one_iteration.centroids
    return centroids
