"""The exact index of one process: every embedding in memory, compared by FAISS."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from app.index.columns import Columns
from app.index.port import Addition, Change, Filter, Found, Hit, Removal, SavedState, SnapshotError
from app.kit.locks import ReadersWriterLock
from model.architecture import EMBEDDING_DIM

Block = NDArray[np.float32]

BLOCK_ROWS = 4096
"""Rows of a block, 32 MiB: few enough for FAISS to search it in the calling thread. From about 10,000 rows on FAISS
splits one query over its threads, which takes longer on two cores: 9.5 against 6.8 ms for 20,000 rows where the cores
are idle, 24 against 7 ms where they are busy."""

_PIECE_ROWS = 512
"""Rows that a snapshot takes at a time, so that changes wait for it a few milliseconds at most."""

_COLUMNS_FILE = "columns.npz"
_EMBEDDINGS_FILE = "embeddings.f16"


class FaissExactIndex:
    """A `VectorIndex` whose every answer is exact; for galleries whose embeddings (8 KiB a crop) fit into memory.

    FAISS's own IndexFlatIP copies all it holds whenever it outgrows its memory, and again to remove a row. Here
    rows lie in blocks that never move, and the search of IndexFlatIP runs over each. A removed row's place is
    taken by the last row. So a change costs what it changes, whatever the gallery's size; nothing removed stays
    in memory; and no search has to pass over dead rows.
    """

    def __init__(self, model_id: str, block_rows: int = BLOCK_ROWS) -> None:
        """An empty index for embeddings of one model."""
        self._model_id = model_id
        self._block_rows = block_rows
        self._lock = ReadersWriterLock()
        self._blocks: list[Block] = []
        self._columns = Columns()
        self._rows: dict[int, int] = {}  # row of each key
        self._last_sequence = 0

    @property
    def model_id(self) -> str:
        """See `VectorIndex`."""
        return self._model_id

    @property
    def size(self) -> int:
        """See `VectorIndex`."""
        return len(self._columns)

    @property
    def last_sequence(self) -> int:
        """See `VectorIndex`."""
        return self._last_sequence

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """See `VectorIndex`."""
        refused = _refused(changes)
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
        refused = _refused(rows)
        with self._lock.writing():
            for row in rows:
                if row not in refused:
                    self._add(row)
            self._last_sequence = last_sequence
        return tuple(addition.key for addition in refused)

    def search(
        self, query: NDArray[np.float32], which: Filter, top_k: int, min_similarity: float | None = None
    ) -> Found:
        """See `VectorIndex`."""
        query = _checked(query)
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for one crop or more")
        with self._lock.reading():
            rows = self._columns.matching(which)
            similarities, found = self._nearest(query, rows, top_k)
            keys = self._columns.keys[found]
            size = len(self._columns)
        best = np.lexsort((keys, -similarities))[:top_k]
        if min_similarity is not None:
            best = best[similarities[best] >= min_similarity]
        hits = tuple(
            Hit(key, similarity)
            for key, similarity in zip(keys[best].tolist(), similarities[best].tolist(), strict=True)
        )
        return Found(hits, compared=size if rows is None else len(rows), gallery_size=size)

    def save(self, folder: Path) -> SavedState:
        """See `VectorIndex`. Embeddings are saved as float16, which is what they came as."""
        with self._lock.reading():
            columns = self._columns.selected(slice(None))
            last_sequence = self._last_sequence
        still_there = np.empty(len(columns), np.bool_)
        with (folder / _EMBEDDINGS_FILE).open("wb") as file:
            for start in range(0, len(columns), _PIECE_ROWS):
                piece = slice(start, start + _PIECE_ROWS)
                embeddings, still_there[piece] = self._embeddings(columns.keys[piece])
                file.write(embeddings.tobytes())
        columns = columns.selected(np.flatnonzero(still_there))
        columns.save(folder / _COLUMNS_FILE)
        return SavedState(self._model_id, len(columns), last_sequence)

    @classmethod
    def restore(cls, folder: Path, state: SavedState, block_rows: int = BLOCK_ROWS) -> Self:
        """Read what `save` wrote. Raises SnapshotError if the files are not what `state` says."""
        index = cls(state.model_id, block_rows)
        index._last_sequence = state.last_sequence
        try:
            index._columns = Columns.load(folder / _COLUMNS_FILE)
            index._rows = {key: row for row, key in enumerate(index._columns.keys.tolist())}
            index._read_embeddings(folder / _EMBEDDINGS_FILE)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SnapshotError(f"{folder} cannot be read: {error}") from error
        if index.size != state.size or len(index._rows) != state.size:
            raise SnapshotError(f"{folder} holds {len(index._rows)} crops, but should hold {state.size}")
        return index

    def _add(self, addition: Addition) -> None:
        if addition.key in self._rows:
            return
        row = len(self._columns)
        if row == len(self._blocks) * self._block_rows:
            self._blocks.append(self._new_block())
        self._embedding(row)[:] = addition.embedding
        self._columns.append(addition.key, addition.columns)
        self._rows[addition.key] = row

    def _remove(self, key: int) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = len(self._columns) - 1
        if row != last:
            self._embedding(row)[:] = self._embedding(last)
            self._rows[int(self._columns.keys[last])] = row
        self._columns.remove(row)
        if last == (len(self._blocks) - 1) * self._block_rows:
            self._blocks.pop()

    def _nearest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None, top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and rows of the `top_k` best of each block, among all rows or, ascending, among `rows`."""
        similarities, found = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
        for number, block in enumerate(self._blocks):
            start = number * self._block_rows
            filled = block[: len(self._columns) - start]
            if rows is None:
                best = _nearest_of_block(query, filled, None, top_k)
            else:
                first, end = np.searchsorted(rows, (start, start + self._block_rows))
                best = _nearest_of_block(query, filled, rows[first:end] - start, top_k)
            similarities.append(best[0])
            found.append(best[1] + start)
        return np.concatenate(similarities), np.concatenate(found)

    def _embeddings(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The embeddings of those keys that are still there, and which of the keys that are."""
        with self._lock.reading():
            rows = [self._rows.get(key) for key in keys.tolist()]
            there = [row for row in rows if row is not None]
            embeddings = np.empty((len(there), EMBEDDING_DIM), np.float16)
            for position, row in enumerate(there):
                embeddings[position] = self._embedding(row)
        return embeddings, np.array([row is not None for row in rows], np.bool_)

    def _read_embeddings(self, path: Path) -> None:
        left = self.size
        with path.open("rb") as file:
            while left:
                rows = min(left, self._block_rows)
                block = self._new_block()
                block[:rows] = np.fromfile(file, np.float16, rows * EMBEDDING_DIM).reshape(rows, EMBEDDING_DIM)
                self._blocks.append(block)
                left -= rows
            if file.read(1):
                raise ValueError(f"{path.name} holds more than {self.size} embeddings")

    def _embedding(self, row: int) -> NDArray[np.float32]:
        block, place = divmod(row, self._block_rows)
        embedding: NDArray[np.float32] = self._blocks[block][place]
        return embedding

    def _new_block(self) -> Block:
        return np.empty((self._block_rows, EMBEDDING_DIM), np.float32)  # takes memory as rows are written


def _nearest_of_block(
    query: NDArray[np.float32], block: Block, among: NDArray[np.int64] | None, top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """FAISS's exact search, the one inside IndexFlatIP: the most similar rows of a block, best first."""
    count = min(top_k, len(block) if among is None else len(among))
    similarities = np.empty(count, np.float32)
    rows = np.empty(count, np.int64)
    if count:
        faiss.knn_inner_product(
            faiss.swig_ptr(query),
            faiss.swig_ptr(block),
            EMBEDDING_DIM,
            1,
            len(block),
            count,
            faiss.swig_ptr(similarities),
            faiss.swig_ptr(rows),
            None if among is None else faiss.IDSelectorArray(among),
        )
    return similarities, rows


def _refused(changes: Sequence[Change]) -> set[Addition]:
    """The additions that cannot be compared with anything."""
    return {
        change
        for change in changes
        if isinstance(change, Addition)
        and not (change.embedding.shape == (EMBEDDING_DIM,) and np.isfinite(change.embedding).all())
    }


def _checked(query: NDArray[np.float32]) -> NDArray[np.float32]:
    query = np.ascontiguousarray(query, np.float32)
    if query.shape != (EMBEDDING_DIM,) or not np.isfinite(query).all():
        raise ValueError(f"a query is {EMBEDDING_DIM} finite numbers, not an array of shape {query.shape}")
    return query
