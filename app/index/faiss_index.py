"""The index in the process: a write buffer of crops that are all compared, and a segment for large galleries."""

import secrets
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from app.index.checks import checked_query, refused_additions
from app.index.columns import FREE, Columns
from app.index.nearest import PartialResult
from app.index.port import Addition, Change, Filter, Hit, IndexResult, Removal, SavedState, SnapshotError
from app.index.row_numbers import CHUNK_ROWS, chunks
from app.index.segment import Segment
from app.index.tuning import Tuning
from app.index.write_buffer import BLOCK_ROWS, WriteBuffer
from app.kit.cores import available_cores
from app.kit.locks import ReadersWriterLock
from app.kit.thread_batcher import ThreadBatcher
from model.architecture import EMBEDDING_DIM

_COPIED_PER_LOCK = 512
"""Rows copied while the read lock is held once, so that changes wait for a few milliseconds at most."""

_MOVED_PER_LOCK = 128

_SEARCHES_PER_BATCH = 4
"""Larger batches would block changes for longer, and FAISS gains little from them."""

_COMPACT_AT = 2_000
"""The segment is compacted when more than one in this many of its codes is of a deleted crop."""

# Names of files in snapshots.
_COLUMNS_FILE = "columns.npz"
_EMBEDDINGS_FILE = "embeddings.f16"

_log = structlog.get_logger()


class FaissIndex:
    """A `VectorIndex` in memory and on the local disk.

    Up to `Tuning.exact_limit` crops, all are in the write buffer. Above, `maintain` moves them to the segment, and
    later ones in batches. Each crop is either in the buffer or in the segment, and a search asks both.
    """

    def __init__(self, model_id: str, folder: Path, tuning: Tuning | None = None, block_rows: int = BLOCK_ROWS) -> None:
        """An empty index for embeddings of one model. folder: for files that `close` deletes."""
        self._model_id = model_id
        self._folder = folder
        self._tuning = tuning or Tuning()
        self._block_rows = block_rows
        self._lock = ReadersWriterLock()
        self._searches = ThreadBatcher(self._search_batch, available_cores(), _SEARCHES_PER_BATCH)
        self._segment_lock = threading.Lock()  # held while maintenance changes the segment, and while it is saved
        self._closing = threading.Event()
        self._buffer = WriteBuffer(block_rows)
        self._segment: Segment | None = None
        self._last_sequence = 0
        self._unverified = False  # the checksums of a restored segment are not verified yet
        self._damaged: set[int] = set()  # keys in the segment whose embeddings must be loaded again

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
    def segment_size(self) -> int:
        """Number of crops in the segment."""
        return len(self._segment) if self._segment is not None else 0

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """See `VectorIndex`."""
        refused = refused_additions(changes)
        with self._lock.writing():
            for change in changes:
                if change.sequence <= self._last_sequence:
                    continue
                if isinstance(change, Removal):
                    self._remove(change.key)
                elif change not in refused:
                    self._add(change)
                self._last_sequence = change.sequence
        return tuple(addition.key for addition in refused)

    def load(self, rows: Sequence[Addition], last_sequence: int) -> tuple[int, ...]:
        """See `VectorIndex`."""
        refused = refused_additions(rows)
        with self._lock.writing():
            for row in rows:
                if row.key in self._damaged:
                    self._remove(row.key)
                if row not in refused:
                    self._add(row)
            self._last_sequence = last_sequence
        return tuple(addition.key for addition in refused)

    def search(
        self, query: NDArray[np.float32], crop_filter: Filter, top_k: int, min_similarity: float | None = None
    ) -> IndexResult:
        """See `VectorIndex`."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for one crop or more")
        # Slower searches are not batched: a batch of them would block changes for too long.
        batched = self._segment is not None and crop_filter == Filter()
        return self._searches.run(_Search(query, crop_filter, top_k, min_similarity), top_k if batched else None)

    def maintain(self) -> Sequence[int]:
        """See `VectorIndex`."""
        try:
            return self._maintain()
        except _Closing:
            return ()

    def close(self) -> None:
        """See `VectorIndex`."""
        self._closing.set()
        with self._segment_lock:
            if self._segment is not None:
                self._segment.close()

    def save(self, folder: Path) -> SavedState:
        """See `VectorIndex`. Embeddings are saved as float16, their type in `Addition`."""
        with self._segment_lock:
            with self._lock.reading():
                buffer, segment = self._buffer, self._segment
                columns = buffer.columns.take(slice(None))
                segment_state = segment.state() if segment is not None else None
                last_sequence = self._last_sequence
            saved = self._save_buffer(folder, buffer, columns)
            if segment is not None and segment_state is not None:
                segment.save(folder, segment_state)
                saved += segment_state.size
        return SavedState(self._model_id, saved, last_sequence)

    @classmethod
    def restore(
        cls,
        folder: Path,
        state: SavedState,
        *,
        working: Path,
        tuning: Tuning | None = None,
        block_rows: int = BLOCK_ROWS,
    ) -> Self:
        """Read what `save` wrote. Raises SnapshotError if the files do not match `state`, or OSError.

        working: a folder on the same disk, for files that `close` deletes.
        """
        index = cls(state.model_id, working, tuning, block_rows)
        index._last_sequence = state.last_sequence
        try:
            with (folder / _EMBEDDINGS_FILE).open("rb") as file:
                index._buffer = WriteBuffer.restore(Columns.load(folder / _COLUMNS_FILE), file, block_rows)
            if Segment.is_in(folder):
                index._segment = Segment.restore(folder, index._new_path(), index._tuning)
                index._unverified = True
        except (FileNotFoundError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise SnapshotError(f"{folder} cannot be read: {error}") from error
        if index.size != state.size:
            index.close()
            raise SnapshotError(f"{folder} holds {index.size} crops, but should hold {state.size}")
        return index

    def _search_batch(self, searches: "Sequence[_Search]") -> list[IndexResult]:
        """The results of one search, or of several that have no filter and the same `top_k`.

        All NumPy and FAISS calls of a search happen here, where only a few threads run at once. Elsewhere, the threads
        of all callers would contend for the GIL.
        """
        faiss.omp_set_num_threads(1)  # per thread: OpenMP threads that share one query mostly wait for each other
        crop_filter, top_k = searches[0].crop_filter, searches[0].top_k
        queries = np.stack([checked_query(search.query) for search in searches])
        with self._lock.reading():
            results = [[self._buffer.search(query, crop_filter, top_k)] for query in queries]
            segment = self._segment
            candidates = [] if segment is None else segment.find_candidates(queries, crop_filter, top_k)
            size = self.size
        if segment is not None:
            # Ranking reads from the disk, so it holds no lock and blocks no change.
            ranked = [segment.rank(query, rows) for query, rows in zip(queries, candidates, strict=True)]
            with self._lock.reading():
                for result, of_query in zip(results, ranked, strict=True):
                    result.append(segment.without_deleted(of_query, self._buffer))
        return [
            _merged(result, top_k, search.min_similarity, size)
            for result, search in zip(results, searches, strict=True)
        ]

    def _add(self, addition: Addition) -> None:
        if addition.key in self._buffer or (self._segment is not None and addition.key in self._segment):
            return
        self._buffer.add(addition.key, addition.embedding, addition.columns)

    def _remove(self, key: int) -> None:
        self._damaged.discard(key)
        self._buffer.remove(key)
        if self._segment is not None:
            self._segment.remove(key)

    def _save_buffer(self, folder: Path, buffer: WriteBuffer, columns: Columns) -> int:
        """Save those crops of the columns that are still in the buffer, and return their number."""
        present = np.empty(len(columns), np.bool_)
        with (folder / _EMBEDDINGS_FILE).open("wb") as file:
            for start in range(0, len(columns), _COPIED_PER_LOCK):
                chunk = slice(start, start + _COPIED_PER_LOCK)
                with self._lock.reading():
                    embeddings, present[chunk] = buffer.embeddings(columns.keys[chunk])
                file.write(embeddings.tobytes())
        columns = columns.take(np.flatnonzero(present))
        columns.save(folder / _COLUMNS_FILE)
        return len(columns)

    # Maintenance

    def _maintain(self) -> Sequence[int]:
        faiss.omp_set_num_threads(1)  # per thread: leave the other cores to searches
        segment = self._segment
        if segment is None:
            if len(self._buffer) > self._tuning.exact_limit:
                self._create_segment()
            return ()
        if self._unverified:
            self._find_damaged(segment)
        if self._damaged:  # no moves before they are loaded again: a move would give damaged rows valid checksums
            return sorted(self._damaged)
        if 2 * len(segment) < self._tuning.exact_limit:
            self._drop_segment(segment)
        elif self._tuning.outgrown(segment.nlist, len(segment)):
            self._rebuild_segment(segment)
        else:
            if segment.search_depth.outgrown(len(segment)):
                segment.autotune(self._check)
            if len(self._buffer) >= self._tuning.flush_limit:
                self._flush_buffer(segment)
            elif segment.deleted * _COMPACT_AT >= len(segment):
                with self._segment_lock:
                    segment.compact(self._lock.writing)
        if self._segment is not None:
            self._segment.release_pages()
        return ()

    def _create_segment(self) -> None:
        """Move all crops of the buffer to a new segment."""
        with self._lock.reading():
            columns = self._buffer.columns.take(slice(None))
        embeddings = self._buffer_embeddings(columns.keys)
        segment = Segment.build(self._new_path(), columns, embeddings, self._tuning, self._check)
        with self._segment_lock, self._lock.writing():
            for key in columns.keys.tolist():
                if key not in self._buffer:
                    segment.remove(key)
            self._buffer = self._buffer.without(columns.keys)
            self._segment = segment
        _log.info("the index created a segment and searches approximately", crops=len(segment), nlist=segment.nlist)

    def _rebuild_segment(self, old: Segment) -> None:
        """Replace the segment by a new one with the number of lists for its present size."""
        with self._lock.reading():
            rows = old.live_rows()
            live = old.columns.take(rows)
        columns = Columns()  # a copy of rows has only those texts that are still in use
        columns.copy_rows(np.arange(len(rows)), live, np.arange(len(rows)))
        embeddings = (old.embeddings(chunk) for chunk in chunks(rows, CHUNK_ROWS))
        segment = Segment.build(self._new_path(), columns, embeddings, self._tuning, self._check)
        with self._segment_lock, self._lock.writing():
            for key in columns.keys[old.columns.keys[rows] != columns.keys].tolist():
                segment.remove(key)
            self._segment = segment
        old.close()
        _log.info("the index rebuilt its segment", crops=len(segment), nlist=segment.nlist)

    def _flush_buffer(self, segment: Segment) -> None:
        """Move the crops of the buffer to the segment."""
        with self._segment_lock:
            with self._lock.writing():
                columns = self._buffer.columns.take(slice(None))
                segment.track_removals()
            embeddings = np.concatenate(list(self._buffer_embeddings(columns.keys)))
            staged = segment.stage(columns.keys, embeddings, self._lock.writing)
            with self._lock.writing():
                segment.publish(staged, columns)
                self._buffer = self._buffer.without(columns.keys)

    def _drop_segment(self, segment: Segment) -> None:
        """Move the crops of the segment to the buffer."""
        for rows in chunks(segment.live_rows(), _MOVED_PER_LOCK):
            embeddings = segment.embeddings(rows)
            with self._lock.writing():
                for row, embedding in zip(rows.tolist(), embeddings, strict=True):
                    key = int(segment.columns.keys[row])
                    if key != FREE:
                        self._buffer.add(key, embedding, segment.columns.crop_columns(row))
                        segment.remove(key)
        with self._segment_lock, self._lock.writing():
            self._segment = None
        segment.close()
        _log.info("the index dropped its segment and searches exactly", crops=self.size)

    def _find_damaged(self, segment: Segment) -> None:
        """Once after a restore: verify the checksums of all rows.

        Damaged crops stay in the segment until they are loaded again. So a snapshot that is saved in the meantime
        contains them, and a restore of that snapshot finds the damage again.
        """
        for rows in chunks(segment.live_rows(), CHUNK_ROWS):
            self._check()
            damaged = rows[segment.damaged(rows)]
            with self._lock.writing():
                self._damaged.update(key for key in segment.columns.keys[damaged].tolist() if key != FREE)
        self._unverified = False

    def _buffer_embeddings(self, keys: NDArray[np.int64]) -> Iterator[NDArray[np.float16]]:
        """Embeddings of the buffer in chunks; zeros for crops deleted in the meantime."""
        for chunk in chunks(keys, _COPIED_PER_LOCK):
            embeddings = np.zeros((len(chunk), EMBEDDING_DIM), np.float16)
            with self._lock.reading():
                found, present = self._buffer.embeddings(chunk)
            embeddings[present] = found
            yield embeddings

    def _new_path(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{secrets.token_hex(8)}.rows"

    def _check(self) -> None:
        if self._closing.is_set():
            raise _Closing


@dataclass(frozen=True, eq=False)
class _Search:
    """The arguments of `VectorIndex.search`."""

    query: NDArray[np.float32]
    crop_filter: Filter
    top_k: int
    min_similarity: float | None


class _Closing(Exception):
    """Cancels maintenance because the index is closed."""


def _merged(results: Sequence[PartialResult], top_k: int, min_similarity: float | None, size: int) -> IndexResult:
    """The best hits of the buffer and the segment."""
    keys = np.concatenate([result.keys for result in results])
    similarities = np.concatenate([result.similarities for result in results])
    best = np.lexsort((keys, -similarities))[:top_k]
    if min_similarity is not None:
        best = best[similarities[best] >= min_similarity]
    hits = tuple(
        Hit(key, similarity) for key, similarity in zip(keys[best].tolist(), similarities[best].tolist(), strict=True)
    )
    return IndexResult(hits, compared=sum(result.compared for result in results), gallery_size=size)
