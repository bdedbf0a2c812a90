"""The index of one process: every crop compared while there are few, likely ones where there are many."""

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
from app.index.faiss_coarse import CoarseTier
from app.index.faiss_exact import BLOCK_ROWS, ExactTier
from app.index.nearest import TierFound
from app.index.port import Addition, Change, Filter, Found, Hit, Removal, SavedState, SnapshotError
from app.index.row_numbers import ROWS_AT_ONCE, pieces
from app.index.tuning import Tuning
from app.kit.cores import available_cores
from app.kit.locks import ReadersWriterLock
from app.kit.thread_batcher import ThreadBatcher
from model.architecture import EMBEDDING_DIM

_PIECE_ROWS = 512
"""Rows that are copied at a time, so that changes wait for it a few milliseconds at most."""

_MOVED_AT_ONCE = 128

_SEARCHES_TOGETHER = 4
"""More would hold back changes for longer, and FAISS gains little by them."""

_DEAD_SHARE = 2_000
"""Of so many codes, one may be of a removed crop."""

_COLUMNS_FILE = "columns.npz"
_EMBEDDINGS_FILE = "embeddings.f16"

_log = structlog.get_logger()


class FaissIndex:
    """A `VectorIndex` in memory and on the local disk.

    Up to `Tuning.exact_limit` crops, all lie in the exact tier. Beyond, `upkeep` moves them into the coarse tier, and
    later ones as they gather; each crop lies in one tier, and a search asks both.
    """

    def __init__(self, model_id: str, folder: Path, tuning: Tuning | None = None, block_rows: int = BLOCK_ROWS) -> None:
        """An empty index for embeddings of one model. folder: for files that live as long as it does."""
        self._model_id = model_id
        self._folder = folder
        self._tuning = tuning or Tuning()
        self._block_rows = block_rows
        self._lock = ReadersWriterLock()
        self._searches = ThreadBatcher(self._searched, available_cores(), _SEARCHES_TOGETHER)
        self._codes_stay = threading.Lock()  # held while codes change, and while they are saved
        self._closing = threading.Event()
        self._exact = ExactTier(block_rows)
        self._coarse: CoarseTier | None = None
        self._last_sequence = 0
        self._unchecked = False
        self._damaged: set[int] = set()  # keys in the coarse tier whose embeddings are to be loaded again

    @property
    def model_id(self) -> str:
        """See `VectorIndex`."""
        return self._model_id

    @property
    def size(self) -> int:
        """See `VectorIndex`."""
        return len(self._exact) + (len(self._coarse) if self._coarse is not None else 0)

    @property
    def last_sequence(self) -> int:
        """See `VectorIndex`."""
        return self._last_sequence

    @property
    def coarse_size(self) -> int:
        """How many crops lie in the coarse tier."""
        return len(self._coarse) if self._coarse is not None else 0

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
        self, query: NDArray[np.float32], which: Filter, top_k: int, min_similarity: float | None = None
    ) -> Found:
        """See `VectorIndex`."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for one crop or more")
        # What takes longer would hold back changes for too long if several of it were searched together.
        together = self._coarse is not None and which == Filter()
        return self._searches.run(_Search(query, which, top_k, min_similarity), top_k if together else None)

    def upkeep(self) -> Sequence[int]:
        """See `VectorIndex`."""
        try:
            return self._kept_up()
        except _Closing:
            return ()

    def close(self) -> None:
        """See `VectorIndex`."""
        self._closing.set()
        with self._codes_stay:
            if self._coarse is not None:
                self._coarse.close()

    def save(self, folder: Path) -> SavedState:
        """See `VectorIndex`. Embeddings are saved as float16, which is what they came as."""
        with self._codes_stay:
            with self._lock.reading():
                exact, coarse = self._exact, self._coarse
                columns = exact.columns.selected(slice(None))
                copy = coarse.copy() if coarse is not None else None
                last_sequence = self._last_sequence
            saved = self._save_exact(folder, exact, columns)
            if coarse is not None and copy is not None:
                coarse.save(folder, copy)
                saved += copy.size
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
        """Read what `save` wrote. Raises SnapshotError if the files are not what `state` says, or OSError.

        working: a folder on the same disk, for files that live as long as the index.
        """
        index = cls(state.model_id, working, tuning, block_rows)
        index._last_sequence = state.last_sequence
        try:
            with (folder / _EMBEDDINGS_FILE).open("rb") as file:
                index._exact = ExactTier.restore(Columns.load(folder / _COLUMNS_FILE), file, block_rows)
            if CoarseTier.is_in(folder):
                index._coarse = CoarseTier.restore(folder, index._new_path(), index._tuning)
                index._unchecked = True
        except (FileNotFoundError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise SnapshotError(f"{folder} cannot be read: {error}") from error
        if index.size != state.size:
            index.close()
            raise SnapshotError(f"{folder} holds {index.size} crops, but should hold {state.size}")
        return index

    def _searched(self, searches: "Sequence[_Search]") -> list[Found]:
        """What one search finds, or each of several with the same filter and `top_k`.

        All that NumPy or FAISS does in a thread is done here: whatever else threads did before or after would have them
        wait for each other.
        """
        faiss.omp_set_num_threads(1)  # of this thread: many threads for one query wait for each other
        which, top_k = searches[0].which, searches[0].top_k
        queries = np.stack([checked_query(search.query) for search in searches])
        with self._lock.reading():
            found = [[self._exact.search(query, which, top_k)] for query in queries]
            coarse = self._coarse
            proposals = [] if coarse is None else coarse.propose(queries, which, top_k)
            size = self.size
        if coarse is not None:
            # This reads from the disk, and so holds back no change.
            compared = [coarse.compare(query, proposal) for query, proposal in zip(queries, proposals, strict=True)]
            with self._lock.reading():
                for of_query, one in zip(found, compared, strict=True):
                    of_query.append(coarse.found(one, self._exact))
        return [
            _best(of_query, top_k, search.min_similarity, size)
            for of_query, search in zip(found, searches, strict=True)
        ]

    def _add(self, addition: Addition) -> None:
        if addition.key in self._exact or (self._coarse is not None and addition.key in self._coarse):
            return
        self._exact.add(addition.key, addition.embedding, addition.columns)

    def _remove(self, key: int) -> None:
        self._damaged.discard(key)
        self._exact.remove(key)
        if self._coarse is not None:
            self._coarse.remove(key)

    def _save_exact(self, folder: Path, exact: ExactTier, columns: Columns) -> int:
        """Save those crops of the columns that are still there, and say how many that are."""
        still_there = np.empty(len(columns), np.bool_)
        with (folder / _EMBEDDINGS_FILE).open("wb") as file:
            for start in range(0, len(columns), _PIECE_ROWS):
                piece = slice(start, start + _PIECE_ROWS)
                with self._lock.reading():
                    embeddings, still_there[piece] = exact.embeddings(columns.keys[piece])
                file.write(embeddings.tobytes())
        columns = columns.selected(np.flatnonzero(still_there))
        columns.save(folder / _COLUMNS_FILE)
        return len(columns)

    # upkeep

    def _kept_up(self) -> Sequence[int]:
        faiss.omp_set_num_threads(1)  # of this thread: searches want the other cores
        coarse = self._coarse
        if coarse is None:
            if len(self._exact) > self._tuning.exact_limit:
                self._begin_coarse()
            return ()
        if self._unchecked:
            self._find_damaged(coarse)
        if self._damaged:  # where these moved, they would be taken for sound
            return sorted(self._damaged)
        if 2 * len(coarse) < self._tuning.exact_limit:
            self._end_coarse(coarse)
        elif self._tuning.outgrown(coarse.cells, len(coarse)):
            self._lay_out_anew(coarse)
        else:
            if coarse.probing.outgrown(len(coarse)):
                coarse.measure(self._check)
            if len(self._exact) >= self._tuning.fresh_limit:
                self._move_fresh(coarse)
            elif coarse.dead * _DEAD_SHARE >= len(coarse):
                with self._codes_stay:
                    coarse.purge(self._lock.writing)
        if self._coarse is not None:
            self._coarse.release()
        return ()

    def _begin_coarse(self) -> None:
        """Move all crops into a coarse tier."""
        with self._lock.reading():
            columns = self._exact.columns.selected(slice(None))
        embeddings = self._exact_embeddings(columns.keys)
        coarse = CoarseTier.build(self._new_path(), columns, embeddings, self._tuning, self._check)
        with self._codes_stay, self._lock.writing():
            for key in columns.keys.tolist():
                if key not in self._exact:
                    coarse.remove(key)
            self._exact = self._exact.without(columns.keys)
            self._coarse = coarse
        _log.info("the index compares likely crops only from now on", crops=len(coarse), cells=coarse.cells)

    def _lay_out_anew(self, old: CoarseTier) -> None:
        """Move all crops of the coarse tier into one that is laid out for as many."""
        with self._lock.reading():
            rows = old.live_rows()
            there = old.columns.selected(rows)
        columns = Columns()  # with only the texts that are still in use
        columns.place(np.arange(len(rows)), there, np.arange(len(rows)))
        embeddings = (old.embeddings(piece) for piece in pieces(rows, ROWS_AT_ONCE))
        coarse = CoarseTier.build(self._new_path(), columns, embeddings, self._tuning, self._check)
        with self._codes_stay, self._lock.writing():
            for key in columns.keys[old.columns.keys[rows] != columns.keys].tolist():
                coarse.remove(key)
            self._coarse = coarse
        old.close()
        _log.info("the index was laid out anew", crops=len(coarse), cells=coarse.cells)

    def _move_fresh(self, coarse: CoarseTier) -> None:
        """Move the crops of the exact tier into the coarse one."""
        with self._codes_stay:
            with self._lock.writing():
                columns = self._exact.columns.selected(slice(None))
                coarse.watch_removals()
            embeddings = np.concatenate(list(self._exact_embeddings(columns.keys)))
            staged = coarse.stage(columns.keys, embeddings, self._lock.writing)
            with self._lock.writing():
                coarse.place(staged, columns)
                self._exact = self._exact.without(columns.keys)

    def _end_coarse(self, coarse: CoarseTier) -> None:
        """Move the crops of the coarse tier into the exact one."""
        for rows in pieces(coarse.live_rows(), _MOVED_AT_ONCE):
            embeddings = coarse.embeddings(rows)
            with self._lock.writing():
                for row, embedding in zip(rows.tolist(), embeddings, strict=True):
                    key = int(coarse.columns.keys[row])
                    if key != FREE:
                        self._exact.add(key, embedding, coarse.columns.of(row))
                        coarse.remove(key)
        with self._codes_stay, self._lock.writing():
            self._coarse = None
        coarse.close()
        _log.info("the index compares every crop from now on", crops=self.size)

    def _find_damaged(self, coarse: CoarseTier) -> None:
        """Once after a start: note the crops whose embeddings the disk has damaged.

        They stay where they are until they are loaded again, so that a snapshot which is saved meanwhile has them, and
        whoever restores it finds them damaged once more.
        """
        for rows in pieces(coarse.live_rows(), ROWS_AT_ONCE):
            self._check()
            damaged = rows[coarse.damaged(rows)]
            with self._lock.writing():
                self._damaged.update(key for key in coarse.columns.keys[damaged].tolist() if key != FREE)
        self._unchecked = False

    def _exact_embeddings(self, keys: NDArray[np.int64]) -> Iterator[NDArray[np.float16]]:
        """Embeddings of the exact tier, piece by piece; zeros for those that are gone by now."""
        for piece in pieces(keys, _PIECE_ROWS):
            embeddings = np.zeros((len(piece), EMBEDDING_DIM), np.float16)
            with self._lock.reading():
                found, there = self._exact.embeddings(piece)
            embeddings[there] = found
            yield embeddings

    def _new_path(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{secrets.token_hex(8)}.rows"

    def _check(self) -> None:
        if self._closing.is_set():
            raise _Closing


@dataclass(frozen=True, eq=False)
class _Search:
    """What `VectorIndex.search` is asked."""

    query: NDArray[np.float32]
    which: Filter
    top_k: int
    min_similarity: float | None


class _Closing(Exception):
    """Upkeep ends before its time."""


def _best(found: Sequence[TierFound], top_k: int, min_similarity: float | None, size: int) -> Found:
    """The best of what the tiers found."""
    keys = np.concatenate([one.keys for one in found])
    similarities = np.concatenate([one.similarities for one in found])
    best = np.lexsort((keys, -similarities))[:top_k]
    if min_similarity is not None:
        best = best[similarities[best] >= min_similarity]
    hits = tuple(
        Hit(key, similarity) for key, similarity in zip(keys[best].tolist(), similarities[best].tolist(), strict=True)
    )
    return Found(hits, compared=sum(one.compared for one in found), gallery_size=size)
