"""The segment of the index: the bulk of a large gallery, in compressed codes of FAISS that give candidates."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from app.index.columns import FREE, Columns
from app.index.key_rows import KeyRows
from app.index.nearest import NO_CROP, UNTYPED_FAISS, PartialResult, as_float32
from app.index.part_lengths import evenness, median_part_lengths
from app.index.port import CropColumns, Filter
from app.index.search_depth import Depth, GroundTruth, SearchDepth, exhaustive_depth, measure
from model.architecture import EMBEDDING_DIM

_PCA_DIMS = 256
_PCA_SAMPLE = 20_000
_ROWS_PER_CHUNK = 4_096
_DIMS_PER_SUBQUANTIZER = 4
_MIN_NLIST, _MAX_NLIST = 1, 65_536

MIN_SAMPLE = 16
"""Crops that a segment can be trained on, at least: one for each value of a PQ code."""

_SAMPLE = 50_000
_ROWS_PER_CENTROID = 12

_KMEANS_ITERATIONS = 8
_SEED = 1804

_QUERIES = 300
"""Crops that the search depth is measured with."""

_EXHAUSTIVE_LIMIT = 20_000
"""Up to this number of crops that pass a filter, all are compared by their SQ8 codes."""

_MIN_EXHAUSTIVE_CANDIDATES = 50
"""Candidates of these that a search returns at least: a small or young segment may not know its crops well."""

_REBUILD_EMPTY_SHARE = 4
"""The segment is rebuilt when one in this many of its rows holds no crop any more."""

_FASTSCAN_IMPLEM = 11
"""The `implem` of FAISS's fast-scan indexes that is fastest for one query; FAISS's default is another one."""

# Names of files in snapshots.
_CODES_FILE, _COLUMNS_FILE, _STATE_FILE = "segment.faiss", "segment.npz", "segment.json"


class Segment:
    """Any number of crops, each in a row that does not move. Not thread-safe: several readers, or one writer.

    An embedding is projected by PCA with a random rotation, which spreads the variance evenly over the dimensions, and
    stored in two codes: PQ codes of 4 bits in the lists of an IVF index give candidates, which SQ8 codes refine. Rows
    are only appended. A deleted crop leaves its codes behind until `compact`, and an empty row until the segment is
    rebuilt.
    """

    def __init__(self, codes: Any, columns: Columns, depth: SearchDepth, part_lengths: NDArray[np.float64]) -> None:
        """codes: a `faiss.IndexPreTransform` of an `IndexRefine`, with a row for each of the columns."""
        self._codes = codes
        self._transform = UNTYPED_FAISS.downcast_VectorTransform(codes.chain.at(0))
        self._refine = UNTYPED_FAISS.downcast_index(codes.index)
        self._ivf = UNTYPED_FAISS.downcast_index(self._refine.base_index)
        self._sq8 = UNTYPED_FAISS.downcast_index(self._refine.refine_index)
        self._ivf.implem = _FASTSCAN_IMPLEM
        self.columns = columns
        self.depth = depth
        self._part_lengths = part_lengths
        self._truth: GroundTruth | None = None
        self._live = _GrowingMask(columns.keys != FREE)
        rows = np.flatnonzero(self._live.values)
        self._rows = KeyRows()
        self._rows.add(columns.keys[rows].tolist(), rows.tolist())
        self._size = len(rows)
        self._tombstones: list[int] = []  # rows of deleted crops whose codes are still there

    @classmethod
    def train(cls, sample: NDArray[np.float16], crops: int, check: Callable[[], None]) -> Self:
        """An empty segment for about this many crops, of which the sample `(N, 2048)` is a random part.

        The sample has at least MIN_SAMPLE crops. `check` is called from time to time and may raise, to end the work.
        """
        dims = min(_PCA_DIMS, len(sample) // _DIMS_PER_SUBQUANTIZER * _DIMS_PER_SUBQUANTIZER)
        transform = _projection(as_float32(sample[:_PCA_SAMPLE]), dims)
        check()
        nlist = min(nlist_for(crops), len(sample))
        code = f"PQ{dims // _DIMS_PER_SUBQUANTIZER}x4fs"
        refine: Any = faiss.index_factory(dims, f"IVF{nlist},{code},Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
        chunks = (sample[start : start + _ROWS_PER_CHUNK] for start in range(0, len(sample), _ROWS_PER_CHUNK))
        projected = np.concatenate([transform.apply(as_float32(chunk)) for chunk in chunks])
        ivf = UNTYPED_FAISS.downcast_index(refine.base_index)
        ivf.quantizer.add(_centroids(projected, nlist, check))
        ivf.pq.cp.min_points_per_centroid = 1  # no warning for small samples
        refine.train(projected)
        codes = faiss.IndexPreTransform(transform, refine)
        segment = cls(codes, Columns(), exhaustive_depth(crops, nlist), median_part_lengths(sample[:_QUERIES]))
        segment._truth = GroundTruth(as_float32(sample[:_QUERIES]))
        return segment

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    @property
    def nlist(self) -> int:
        """Number of IVF lists."""
        return int(self._ivf.nlist)

    @property
    def tombstones(self) -> int:
        """Number of deleted crops whose codes are still there."""
        return len(self._tombstones)

    @property
    def outgrown(self) -> bool:
        """Whether it should be rebuilt: it has far too few or too many lists, or too many empty rows."""
        wanted = nlist_for(self._size)
        empty = len(self.columns) - self._size
        return wanted >= 2 * self.nlist or wanted * 4 <= self.nlist or empty * _REBUILD_EMPTY_SHARE > len(self.columns)

    def add(self, columns: Columns, embeddings: NDArray[np.float16]) -> None:
        """Add crops `(N, 2048)` whose keys are not present."""
        vectors = as_float32(embeddings)
        projected = self._transform.apply(vectors)
        rows = np.arange(len(self.columns), len(self.columns) + len(columns))
        self._ivf.add_with_ids(projected, rows)
        self._sq8.add(projected)
        self._refine.ntotal = self._codes.ntotal = self._sq8.ntotal
        self._rows.add(columns.keys.tolist(), rows.tolist())
        self.columns.copy_rows(rows, columns, np.arange(len(columns)))
        self._live.append(len(rows))
        self._size += len(rows)
        if self._truth is not None:
            self._truth.add(vectors)

    def set(self, key: int, columns: CropColumns) -> None:
        """Set the fields of a crop, if it is present."""
        row = self._rows.row(key)
        if row is not None:
            self.columns.set(row, columns)

    def remove(self, key: int) -> None:
        """Delete a crop, if it is present."""
        row = self._rows.pop(key)
        if row is not None:
            self.columns.free(row)
            self._live.values[row] = False
            self._size -= 1
            self._tombstones.append(row)

    def compact(self) -> None:
        """Remove the codes of deleted crops."""
        rows = np.array(self._tombstones, np.int64)
        sizes = self._list_sizes()
        self._ivf.remove_ids(faiss.IDSelectorBatch(rows))
        self._all_codes()[rows] = 0
        self._clear_list_ends(np.flatnonzero(self._list_sizes() < sizes).tolist())
        self._tombstones = []

    def codes_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The SQ8 codes of rows, `(N, D)`."""
        return self._all_codes()[rows]

    def measure_depth(self, recall: float) -> None:
        """Measure the search depth, once after all crops were added to a new segment."""
        if self._truth is None:
            return
        queries = self._transform.apply(self._truth.queries)
        if self._sq8.ntotal > 1:
            self.depth = measure(self._refine, queries, self._truth.rows(), recall)
        self._truth = None

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> PartialResult:
        """For each query, candidates among the crops that pass the filter: the `top_k` most similar are among them.

        Their similarities are approximate. If few crops pass, the SQ8 codes of all are compared; if many pass, the IVF
        lists nearest to the query are searched. The fewer pass, the more lists.
        """
        mask = self.columns.mask(crop_filter)
        passing = self._live.values if mask is None else mask & self._live.values
        count = self._size if mask is None else int(np.count_nonzero(passing))
        if not count:
            return PartialResult(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32), 0)
        least_even = float(evenness(queries, self._part_lengths).min())
        depth = self.depth.at(top_k, least_even**2 * count / self._size)
        if count <= max(_EXHAUSTIVE_LIMIT, top_k):
            rows, similarities = self._compare_all(
                queries, passing, min(count, max(top_k, depth.returned, _MIN_EXHAUSTIVE_CANDIDATES))
            )
        else:
            selected = None if mask is None and not self._tombstones else passing
            rows, similarities = self._search_lists(queries, depth, selected, top_k)
        similarities[rows < 0] = NO_CROP
        return PartialResult(self.columns.keys[rows], similarities, count)

    def save(self, folder: Path, columns: Columns) -> None:
        """Write a snapshot of these columns, a copy of the segment's, while crops may be removed but not added."""
        columns.save(folder / _COLUMNS_FILE)
        faiss.write_index(self._codes, str(folder / _CODES_FILE))
        state = {"depth": asdict(self.depth), "part_lengths": self._part_lengths.tolist()}
        (folder / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """Whether a folder holds a saved segment."""
        return (folder / _STATE_FILE).exists()

    @classmethod
    def restore(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises OSError, ValueError, KeyError, TypeError, BadZipFile or RuntimeError if the folder holds something else.
        """
        state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
        depth = SearchDepth(
            tuple(state["depth"]["top_k"]), tuple(Depth(**measured) for measured in state["depth"]["depths"])
        )
        columns = Columns.load(folder / _COLUMNS_FILE)
        segment = cls(
            faiss.read_index(str(folder / _CODES_FILE)), columns, depth, np.array(state["part_lengths"], np.float64)
        )
        if segment._sq8.ntotal != len(columns):
            raise ValueError(f"there are {segment._sq8.ntotal} codes for {len(columns)} rows")
        empty = np.flatnonzero(columns.keys == FREE)
        segment._tombstones = empty[segment.codes_of(empty).any(axis=1)].tolist()
        return segment

    def _search_lists(
        self, queries: NDArray[np.float32], depth: Depth, selected: NDArray[np.bool_] | None, top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and similarities `(N, count)`; a row is -1 where there is no further one."""
        count = max(top_k, depth.returned)
        for nprobe in (min(depth.nprobe, self.nlist), self.nlist):  # all lists, if the first ones hold too few
            k_factor = max(1.0, depth.candidates / count)
            if selected is None:
                parameters = _unfiltered(nprobe, k_factor)
            else:
                parameters = _parameters(nprobe, k_factor, _selector(selected))
            similarities, rows = self._codes.search(queries, count, params=parameters)
            if np.count_nonzero(rows >= 0, axis=1).min() >= top_k:
                break
        return rows, similarities

    def _compare_all(
        self, queries: NDArray[np.float32], passing: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best of the passing rows by their SQ8 codes, and their similarities, `(N, count)`."""
        parameters = UNTYPED_FAISS.SearchParameters(sel=_selector(passing))
        similarities, rows = self._sq8.search(self._transform.apply(queries), count, params=parameters)
        return rows, similarities

    def _list_sizes(self) -> NDArray[np.int64]:
        lists = self._ivf.invlists
        return np.array([lists.list_size(number) for number in range(self.nlist)], np.int64)

    def _clear_list_ends(self, numbers: Sequence[int]) -> None:
        """Overwrite the codes after the last one of IVF lists: FAISS leaves removed ones in blocks, which it saves."""
        lists = UNTYPED_FAISS.downcast_InvertedLists(self._ivf.invlists)
        blank = np.zeros(lists.packer.code_size, np.uint8)
        for number in numbers:
            blocks, used = divmod(lists.list_size(number), lists.n_per_block)
            if used:
                codes = faiss.rev_swig_ptr(lists.get_codes(number), (blocks + 1) * lists.block_size)
                for place in range(used, lists.n_per_block):
                    lists.packer.pack_1(blank, place, codes.reshape(-1, lists.block_size)[blocks:])

    def _all_codes(self) -> NDArray[np.uint8]:
        """All SQ8 codes, `(N, D)`, in FAISS's memory."""
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._sq8.codes.data(), self._sq8.codes.size())
        return codes.reshape(-1, self._sq8.code_size)


class _GrowingMask:
    """A mask of rows; memory is reserved for more."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._reserved = mask
        self._size = len(mask)

    @property
    def values(self) -> NDArray[np.bool_]:
        """The mask `(N,)`, a view."""
        return self._reserved[: self._size]

    def append(self, count: int) -> None:
        """Append true values."""
        self._size += count
        if self._size > len(self._reserved):
            self._reserved = np.concatenate([self.values, np.ones(self._size, np.bool_)])


def sample_size(crops: int) -> int:
    """Number of crops that a segment for this many is trained on."""
    return min(crops, max(_SAMPLE, _ROWS_PER_CENTROID * nlist_for(crops)))


def nlist_for(crops: int) -> int:
    """Number of IVF lists for this many crops: about four times the square root, a power of two."""
    exponent = round(math.log2(4 * math.sqrt(max(1, crops))))
    return int(min(_MAX_NLIST, max(_MIN_NLIST, 2**exponent)))


def _projection(sample: NDArray[np.float32], dims: int) -> Any:
    """PCA with a random rotation, as a linear map without an offset: centring a query would change its similarities.

    Only the map is kept: FAISS would save all eigenvectors with it.
    """
    pca = faiss.PCAMatrix(EMBEDDING_DIM, dims, 0, True)
    pca.train(sample)
    transform = faiss.LinearTransform(EMBEDDING_DIM, dims, False)
    faiss.copy_array_to_vector(faiss.vector_to_array(pca.A)[: dims * EMBEDDING_DIM], transform.A)
    transform.is_trained = True
    return transform


def _centroids(sample: NDArray[np.float32], nlist: int, check: Callable[[], None]) -> NDArray[np.float32]:
    """Spherical k-means, whose lists are more even for inner products; `check` runs before each iteration."""
    one_iteration: Any = faiss.Kmeans(
        sample.shape[1], nlist, niter=1, spherical=True, seed=_SEED, min_points_per_centroid=1
    )
    for _ in range(_KMEANS_ITERATIONS):
        check()
        one_iteration.train(sample, init_centroids=one_iteration.centroids)
    centroids: NDArray[np.float32] = one_iteration.centroids
    return centroids


def _parameters(nprobe: int, k_factor: float, selector: Any = None) -> Any:
    """How FAISS searches a segment; selector: the rows that it may return, or None for all."""
    return UNTYPED_FAISS.SearchParametersPreTransform(
        index_params=UNTYPED_FAISS.IndexRefineSearchParameters(
            k_factor=k_factor, base_index_params=UNTYPED_FAISS.SearchParametersIVF(nprobe=nprobe, sel=selector)
        )
    )


_unfiltered = lru_cache(_parameters)


def _selector(selected: NDArray[np.bool_]) -> Any:
    """The rows of a mask, for FAISS."""
    return UNTYPED_FAISS.IDSelectorBitmap(np.packbits(selected, bitorder="little"))
