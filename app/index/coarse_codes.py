"""Short codes of embeddings, sorted into cells, by which FAISS proposes the crops that are worth comparing exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from app.index.nearest import all_similarities, as_float32
from app.index.row_numbers import ROWS_AT_ONCE, pieces, sampled
from app.index.tuning import Tuning
from model.architecture import EMBEDDING_DIM

Check = Callable[[], None]
"""Called now and then in long work; raises what ends it."""

_PROJECTION_SAMPLE = 40_000
_CELL_SAMPLE = 40  # rows a cell, about the least that FAISS asks for
_ROUNDS = 8
_SEED = 1804

_CODES_FILE = "codes.faiss"
_PROJECTION_FILE = "projection.npz"

_ONE_QUERY = 11
"""Of FAISS's ways to look at packed codes, the fastest for one query; by itself, it takes another."""


class Rows(Protocol):
    """Embeddings by row number."""

    def __len__(self) -> int:
        """How many rows there are."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Some rows, ascending, as `(N, 2048)`."""


@dataclass(frozen=True)
class Projection:
    """The directions in which embeddings differ most: `directions` `(D, 2048)`, `offset` `(D,)` that of their mean.

    They are turned by chance, so that each carries about as much as any other, as codes of equal length want it. A
    query is turned, but not moved to the mean: that would change its similarities by different amounts.
    """

    directions: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def of(cls, sample: Rows, dims: int, check: Check) -> Self:
        """Fitted on some embeddings by principal component analysis."""
        total = np.zeros(EMBEDDING_DIM, np.float64)
        products = np.zeros((EMBEDDING_DIM, EMBEDDING_DIM), np.float32)
        for rows in pieces(sampled(len(sample), _PROJECTION_SAMPLE), ROWS_AT_ONCE):
            check()
            embeddings = as_float32(sample.read(rows))
            total += embeddings.sum(axis=0)
            products += embeddings.T @ embeddings
        count = min(len(sample), _PROJECTION_SAMPLE)
        mean = total / count
        covariance = products.astype(np.float64) / count - np.outer(mean, mean)
        turn, _ = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dims, dims)))
        directions = np.ascontiguousarray((_main_directions(covariance, count, dims) @ turn).T, np.float32)
        return cls(directions, (directions @ mean).astype(np.float32))

    @property
    def dims(self) -> int:
        """D, the number of directions."""
        return len(self.directions)

    def crops(self, embeddings: NDArray[np.float16]) -> NDArray[np.float32]:
        """Embeddings `(N, 2048)` as `(N, D)`."""
        turned: NDArray[np.float32] = as_float32(embeddings) @ self.directions.T
        turned -= self.offset
        return turned

    def query(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query `(2048,)` as `(D,)`."""
        return all_similarities(query, self.directions)


class CoarseCodes:
    """Codes by row number. Not safe among threads: readers together, or one that changes them."""

    def __init__(self, projection: Projection, index: Any) -> None:
        self.projection = projection
        self._index = index
        if isinstance(index, faiss.IndexIVFFastScan):
            index.implem = _ONE_QUERY

    @classmethod
    def train(cls, rows: Rows, tuning: Tuning, check: Check) -> Self:
        """Codes without a row yet, laid out for embeddings like these and as many."""
        projection = Projection.of(rows, tuning.code_dims, check)
        cells = min(tuning.cells_for(len(rows)), len(rows))
        sample = np.concatenate(
            [
                projection.crops(rows.read(some))
                for some in pieces(sampled(len(rows), _CELL_SAMPLE * cells), ROWS_AT_ONCE)
            ]
        )
        check()
        index: Any = faiss.index_factory(tuning.code_dims, f"IVF{cells},{tuning.code}", faiss.METRIC_INNER_PRODUCT)
        index.quantizer.add(_cell_centres(sample, cells, check))
        index.train(sample)
        return cls(projection, index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def cells(self) -> int:
        """Into how many cells the codes are sorted."""
        return int(self._index.nlist)

    def add(self, rows: NDArray[np.int64], projected: NDArray[np.float32]) -> None:
        """Add rows that are not there, by their projections `(N, D)`.

        FAISS finds the cells once more: what it offers to tell it the cells (`add_core`) makes no sound codes of the
        packed kinds, and says nothing.
        """
        self._index.add_with_ids(projected, rows)

    def remove(self, gone: NDArray[np.bool_]) -> None:
        """Drop the rows that are marked in a mask of all rows."""
        bits = np.packbits(gone, bitorder="little")
        self._index.remove_ids(faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)))

    def propose(
        self, queries: NDArray[np.float32], probes: int, candidates: int, among: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """The rows `(N, candidates)` that seem most similar to projected queries `(N, D)`, best first; -1 for no more.

        probes: the cells that are looked into. among: a mask of all rows; only these.
        """
        how = faiss.SearchParametersIVF()
        how.nprobe = min(probes, self.cells)
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            how.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        rows: NDArray[np.int64] = self._index.search(queries, candidates, params=how)[1]
        return rows

    def cell_ranks(self, query: NDArray[np.float32], embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Of embeddings `(N, 2048)`, which cell in the order of a search by a projected query is theirs, from 0."""
        _, order = self._index.quantizer.search(query[None], self.cells)
        ranks = np.empty(self.cells, np.int64)
        ranks[order[0]] = np.arange(self.cells)
        _, cells = self._index.quantizer.search(self.projection.crops(embeddings), 1)
        of_embeddings: NDArray[np.int64] = ranks[cells[:, 0]]
        return of_embeddings

    def save(self, folder: Path) -> None:
        """Write files into a folder."""
        np.savez(folder / _PROJECTION_FILE, directions=self.projection.directions, offset=self.projection.offset)
        faiss.write_index(self._index, str(folder / _CODES_FILE))

    @classmethod
    def restore(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises OSError, ValueError, KeyError, BadZipFile or RuntimeError if it is not that.
        """
        with np.load(folder / _PROJECTION_FILE, allow_pickle=False) as file:
            projection = Projection(file["directions"], file["offset"])
        return cls(projection, faiss.read_index(str(folder / _CODES_FILE)))


def _main_directions(covariance: NDArray[np.float64], rank: int, dims: int) -> NDArray[np.float64]:
    """The eigenvectors `(N, dims)` of a matrix `(N, N)` of at most that rank, from that of the largest value on."""
    width = rank + dims
    if 2 * width > len(covariance):
        return np.linalg.eigh(covariance).eigenvectors[:, ::-1][:, :dims]
    # So many products with vectors by chance span all that it maps to: the rest happens in that small space.
    by_chance = np.random.default_rng(_SEED).standard_normal((len(covariance), width))
    space = np.linalg.qr(covariance @ by_chance).Q
    within = np.linalg.eigh(space.T @ covariance @ space).eigenvectors[:, ::-1]
    directions: NDArray[np.float64] = space @ within[:, :dims]
    return directions


def _cell_centres(sample: NDArray[np.float32], cells: int, check: Check) -> NDArray[np.float32]:
    """Spherical k-means, which makes cells of even sizes where similarities are inner products; a round at a time."""
    one_round: Any = faiss.Kmeans(
        sample.shape[1], cells, niter=1, spherical=True, seed=_SEED, min_points_per_centroid=1
    )
    for _ in range(_ROUNDS):
        check()
        one_round.train(sample, init_centroids=one_round.centroids)
    centres: NDArray[np.float32] = one_round.centroids
    return centres
