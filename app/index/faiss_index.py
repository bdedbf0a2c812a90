"""The index in the process: a write buffer of the newest crops, and a segment of all others in a large gallery."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from app.index.checks import checked_queries, refused_keys
from app.index.columns import Columns
from app.index.nearest import NO_CROP, PartialResult
from app.index.port import Addition, Change, Filter, IndexResult, Removal, SavedState, SnapshotError
from app.index.segment import MIN_SAMPLE, Segment, sample_size
from app.index.write_buffer import WriteBuffer
from app.kit.cores import available_cores
from app.kit.locks import ReadersWriterLock

_ROWS_PER_LOCK = 64
"""Crops that move while the lock is held once, which takes a few milliseconds."""

_COMPACT_SHARE = 2_000
"""Codes of deleted crops are removed when they are one in this many, as searches wait for it."""

_TEAM = ThreadPoolExecutor(1, "index-team")
"""The one thread of the process that shares its work among the cores by OpenMP.

libgomp keeps a team for each thread that does so. Once the teams together have more threads than there are cores, their
threads sleep between the steps of a search instead of spinning, and waking them takes about as long as the steps.
"""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Tuning:
    """The trade-off between exact and fast searches.

    exact_limit: up to this number of crops there is no segment, and a search compares all of them. recall: share of the
    true matches that a search of a larger gallery should find. flush_rows: crops in the write buffer at which they move
    to the segment: each search compares all of the buffer.
    """

    exact_limit: int = 10_000
    recall: float = 0.99
    flush_rows: int = 500


class IndexClosed(Exception):
    """The index was closed during long work, which ends."""


class FaissIndex:
    """A `VectorIndex` in memory.

    Each crop is either in the write buffer or in the segment, and a search asks both. Changes go to the buffer;
    `maintain` moves its crops to the segment, if there is one. A segment is created by `prepare`, when the index is
    built from the database's rows.
    """

    def __init__(self, model_id: str, tuning: Tuning | None = None) -> None:
        """An empty index for embeddings of one model."""
        self._model_id = model_id
        self._tuning = tuning or Tuning()
        self._lock = ReadersWriterLock()
        self._cores = available_cores()
        self._searching = threading.BoundedSemaphore(self._cores)  # more threads would contend for the GIL
        self._maintenance_lock = threading.Lock()  # held while maintenance changes the segment, and while it is saved
        self._closing = threading.Event()
        self._buffer = WriteBuffer()
        self._segment: Segment | None = None
        self._last_sequence = 0
        self._last_removal = 0

    @property
    def model_id(self) -> str:
        """See `VectorIndex`."""
        return self._model_id

    @property
    def size(self) -> int:
        """See `VectorIndex`."""
        return len(self._buffer) + self.segment_size

    @property
    def last_sequence(self) -> int:
        """See `VectorIndex`."""
        return self._last_sequence

    @property
    def last_removal(self) -> int:
        """See `SnapshotIndex`."""
        return self._last_removal

    @property
    def segment_size(self) -> int:
        """Number of crops in the segment."""
        return len(self._segment) if self._segment is not None else 0

    @property
    def outgrown(self) -> bool:
        """See `VectorIndex`."""
        if self._segment is None:
            return len(self._buffer) > max(self._tuning.exact_limit, MIN_SAMPLE)
        return 2 * self.size < self._tuning.exact_limit or self._segment.outgrown

    def sample_size(self, crops: int) -> int:
        """See `VectorIndex`."""
        return sample_size(crops) if crops > max(self._tuning.exact_limit, MIN_SAMPLE) else 0

    def prepare(self, sample: NDArray[np.float16], crops: int) -> None:
        """See `VectorIndex`. Creates the segment."""
        valid = sample[np.isfinite(sample).all(axis=1)]
        if len(valid) < MIN_SAMPLE:  # all crops stay in the write buffer
            return
        faiss.omp_set_num_threads(1)
        self._segment = Segment.train(valid, crops, self._check_open)
        _log.info("the index has a segment and searches approximately", crops=crops, nlist=self._segment.nlist)

    def apply(self, changes: Sequence[Change]) -> frozenset[int]:
        """See `VectorIndex`."""
        refused = refused_keys(changes)
        with self._lock.writing():
            for change in changes:
                if change.sequence <= self._last_sequence:
                    continue
                if isinstance(change, Removal):
                    self._remove(change)
                elif change.key not in refused:
                    self._upsert(change)
                self._last_sequence = change.sequence
        return refused

    def load(self, rows: Sequence[Addition], last_sequence: int) -> frozenset[int]:
        """See `VectorIndex`."""
        refused = refused_keys(rows)
        with self._lock.writing():
            added = {row.key: row for row in rows if row.key not in refused and not self._has(row.key)}
            if self._segment is None:
                for row in added.values():
                    self._buffer.add(row.key, row.embedding, row.columns)
            elif added:
                faiss.omp_set_num_threads(1)
                columns = Columns()
                for row in added.values():
                    columns.append(row.key, row.columns)
                self._segment.add(columns, np.stack([row.embedding for row in added.values()]))
            self._last_sequence = self._last_removal = last_sequence
        return refused

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[IndexResult]:
        """See `VectorIndex`."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for one crop or more")
        queries = checked_queries(queries)
        if len(queries) == 1:  # threads that share one query mostly wait for each other
            return self._search(queries, crop_filter, top_k)
        return _TEAM.submit(self._search, queries, crop_filter, top_k).result()

    def _search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[IndexResult]:
        faiss.omp_set_num_threads(min(len(queries), self._cores))  # of the calling thread
        with self._searching, self._lock.reading():
            parts = [self._buffer.search(queries, crop_filter, top_k)]
            if self._segment is not None:
                parts.append(self._segment.search(queries, crop_filter, top_k))
            size = self.size
        return _joined(parts, size)

    def maintain(self) -> None:
        """See `VectorIndex`."""
        if self._segment is None:
            return
        faiss.omp_set_num_threads(1)  # per thread: leave the other cores to searches
        with self._maintenance_lock:
            self._segment.measure_depth(self._tuning.recall)
            if len(self._buffer) >= self._tuning.flush_rows:
                self._flush(self._segment)
            if self._segment.tombstones * _COMPACT_SHARE >= len(self._segment):
                self._compact(self._segment)

    def close(self) -> None:
        """See `VectorIndex`."""
        self._closing.set()

    def save(self, folder: Path) -> SavedState:
        """See `VectorIndex`. Embeddings of the buffer are saved as float16, their type in `Addition`."""
        with self._maintenance_lock:
            if self._segment is not None:
                self._compact(self._segment)  # a deleted embedding leaves the disk with this snapshot
            with self._lock.reading():
                buffered, segment = self._buffer.last(len(self._buffer)), self._segment
                columns = Columns() if segment is None else segment.columns.take(slice(None))
                state = SavedState(self._model_id, self.size, self._last_sequence, self._last_removal)
            WriteBuffer.save(folder, *buffered)
            if segment is not None:
                segment.save(folder, columns)
        return state

    @classmethod
    def restore(cls, folder: Path, state: SavedState, *, tuning: Tuning | None = None) -> Self:
        """Read what `save` wrote. Raises SnapshotError if the files do not match `state`, or OSError."""
        index = cls(state.model_id, tuning)
        index._last_sequence = state.last_sequence
        index._last_removal = state.last_sequence if state.last_removal is None else state.last_removal
        try:
            index._buffer = WriteBuffer.restore(folder)
            if Segment.is_in(folder):
                index._segment = Segment.restore(folder)
        except (FileNotFoundError, ValueError, LookupError, TypeError, EOFError, RuntimeError, BadZipFile) as error:
            raise SnapshotError(f"{folder} cannot be read: {error}") from error
        if index.size != state.size:
            raise SnapshotError(f"{folder} holds {index.size} crops, but should hold {state.size}")
        return index

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise IndexClosed("the index was closed")

    def _has(self, key: int) -> bool:
        return key in self._buffer or (self._segment is not None and key in self._segment)

    def _remove(self, removal: Removal) -> None:
        self._buffer.remove(removal.key)
        if self._segment is not None:
            self._segment.remove(removal.key)
        self._last_removal = removal.sequence

    def _upsert(self, crop: Addition) -> None:
        if crop.key in self._buffer:
            self._buffer.set(crop.key, crop.columns)
        elif self._segment is not None and crop.key in self._segment:
            self._segment.set(crop.key, crop.columns)
        else:
            self._buffer.add(crop.key, crop.embedding, crop.columns)

    def _compact(self, segment: Segment) -> None:
        if segment.tombstones:
            with self._lock.writing():
                segment.compact()

    def _flush(self, segment: Segment) -> None:
        """Move the crops of the buffer to the segment."""
        while len(self._buffer) and not self._closing.is_set():
            with self._lock.writing():
                columns, embeddings = self._buffer.last(_ROWS_PER_LOCK)
                segment.add(columns, embeddings)
                for key in columns.keys.tolist():
                    self._buffer.remove(key)


def _joined(parts: Sequence[PartialResult], size: int) -> list[IndexResult]:
    """The result of each query from those of the buffer and the segment."""
    keys = np.concatenate([part.keys for part in parts], axis=1)
    similarities = np.concatenate([part.similarities for part in parts], axis=1)
    order = np.lexsort((keys, -similarities))
    keys, similarities = np.take_along_axis(keys, order, 1), np.take_along_axis(similarities, order, 1)
    found = np.count_nonzero(similarities != NO_CROP, axis=1).tolist()
    compared = sum(part.compared for part in parts)
    return [
        IndexResult(keys[query, :count], similarities[query, :count], compared, gallery_size=size)
        for query, count in enumerate(found)
    ]
