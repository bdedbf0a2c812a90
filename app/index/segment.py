"""A segment of the index: an IVF index in memory proposes candidates, SQ8 codes refine them, embeddings rank them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from app.index.autotuning import SearchDepth, autotune
from app.index.columns import FREE, Columns
from app.index.ivf_codes import Check, IvfCodes
from app.index.key_rows import KeyRows
from app.index.nearest import PartialResult, all_similarities, as_float32
from app.index.part_lengths import evenness, median_part_lengths
from app.index.port import Filter
from app.index.row_file import RowFile, row_checksums
from app.index.row_numbers import CHUNK_ROWS, chunks, sample_rows, zero_padded
from app.index.segment_files import SegmentFiles, sq8_path
from app.index.sq8_codes import Sq8Codes, step_for
from app.index.tuning import Tuning
from app.index.write_buffer import WriteBuffer
from model.architecture import EMBEDDING_DIM

# Names of files in snapshots; a snapshot of an older version has the same names.
_COLUMNS_FILE = "coarse.npz"
_STATE_FILE = "coarse_state.npz"
_SEARCH_DEPTH_FILE = "probing.json"

_SEARCH_DEPTH = TypeAdapter(SearchDepth)

_CODES_PER_LOCK = 64
"""Codes added while the write lock is held once, a few milliseconds."""

_STEP_SAMPLE = 4_096

_LENGTHS_SAMPLE = 64

_NO_QUERY = np.empty(0, np.float32)
_NO_ROWS = np.empty(0, np.int64)

WriteLock = Callable[[], AbstractContextManager[None]]
"""Gives a context in which no other thread uses the segment."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows that a query should be compared with, ascending, and their keys when they were chosen.

    compared: number of crops that pass the filter. projected: the query `(D,)` as codes are compared with it. refined:
    number of candidates that remain after refinement by SQ8 codes.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.int64]
    compared: int
    projected: NDArray[np.float32]
    refined: int


@dataclass(frozen=True, eq=False)
class Ranked:
    """Rows with their exact similarities and their keys when they were chosen, each `(N,)`.

    compared: number of crops that pass the filter.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.int64]
    similarities: NDArray[np.float32]
    compared: int


@dataclass(frozen=True, eq=False)
class SegmentState:
    """What a snapshot holds of the segment at one moment, apart from its files and codes."""

    columns: Columns
    checksums: NDArray[np.uint64]
    coded: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """Number of crops."""
        return int(np.count_nonzero(self.columns.keys != FREE))


@dataclass(frozen=True, eq=False)
class StagedRows:
    """Rows whose embeddings and codes are written but that no search sees, and the row of each key after `publish`."""

    rows: NDArray[np.int64]
    rows_of_keys: KeyRows


class Segment:
    """Any number of crops, each in a row that does not move. Thread-safe only where a method says so.

    A search has three steps, each of which compares fewer crops more exactly: IVF codes in memory give candidates, SQ8
    codes on disk refine them, and the refined candidates are ranked by their embeddings, so exactly.

    A row is *live* if it holds a crop and *coded* if it has a code. A deleted crop leaves its code behind, which
    searches skip; `compact` removes the code and frees the row for another crop.
    """

    def __init__(
        self, files: SegmentFiles, codes: IvfCodes, search_depth: SearchDepth, tuning: Tuning, state: SegmentState
    ) -> None:
        self._files = files
        self._codes = codes
        self._search_depth = search_depth
        self._tuning = tuning
        self.columns = state.columns
        self._coded = state.coded
        self._live: NDArray[np.bool_] = self.columns.keys != FREE
        self._size = int(np.count_nonzero(self._live))
        rows = np.flatnonzero(self._live)
        self._rows = KeyRows.of(self.columns.keys[rows], rows)
        self._part_lengths = median_part_lengths(files.embeddings.read(rows[sample_rows(len(rows), _LENGTHS_SAMPLE)]))
        self._removed: list[int] | None = None  # keys removed since `track_removals`

    @classmethod
    def build(
        cls, path: Path, columns: Columns, embeddings: Iterable[NDArray[np.float16]], tuning: Tuning, check: Check
    ) -> Self:
        """Build a segment from columns without free rows and their embeddings, in chunks of `(N, 2048)`.

        Raises OSError, or what `check` raises.
        """
        with ExitStack() as files:
            file = RowFile(path, EMBEDDING_DIM, np.float16)
            files.callback(file.close)
            checksums = np.empty(len(columns), np.uint64)
            start = 0
            for chunk in embeddings:
                check()
                end = start + len(chunk)
                file.write(np.arange(start, end), chunk)
                checksums[start:end] = row_checksums(chunk)
                start = end
            written = _FirstRows(file, len(columns))
            codes = IvfCodes.train(written, tuning, check)
            step = step_for(codes.projection.crops(written.read(sample_rows(len(columns), _STEP_SAMPLE))))
            sq8 = Sq8Codes(sq8_path(path), codes.projection.dims, step)
            files.callback(sq8.file.close)
            for rows in chunks(np.arange(len(columns)), CHUNK_ROWS):
                check()
                projected = codes.projection.crops(written.read(rows))
                codes.add(rows, projected)
                checksums[rows] += sq8.write(rows, projected)
            all_live = np.ones(len(columns), np.bool_)
            search_depth = autotune(codes, sq8, written, all_live, tuning, check)
            files.pop_all()
        state = SegmentState(columns, checksums, all_live)
        return cls(SegmentFiles(file, sq8, checksums), codes, search_depth, tuning, state)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    @property
    def nlist(self) -> int:
        """Number of inverted lists."""
        return self._codes.nlist

    @property
    def search_depth(self) -> SearchDepth:
        """The result of autotuning, which searches use where the tuning sets no value."""
        return self._search_depth

    @property
    def deleted(self) -> int:
        """Number of codes whose crop is deleted."""
        return len(self._codes) - self._size

    def remove(self, key: int) -> None:
        """Delete a crop, if it is present."""
        if self._removed is not None:
            self._removed.append(key)
        row = self._rows.pop(key)
        if row is not None and self.columns.keys[row] == key:  # the row may be freed already, before `publish`
            self.columns.free(row)
            self._live[row] = False
            self._size -= 1

    def find_candidates(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[Candidates]:
        """For each query of `(N, 2048)`, crops that pass the filter and may be among the `top_k` most similar.

        Gives at least `top_k`, or all that pass. If few crops pass, all are candidates and are compared exactly. If
        more pass, all are candidates and are refined by SQ8 codes. If many pass, the IVF codes choose the candidates;
        the fewer crops pass, the more lists are searched.
        """
        mask = self.columns.mask(crop_filter)
        passing = self._live if mask is None else mask & self._live
        count = self._size if mask is None else int(np.count_nonzero(passing))
        if count <= max(top_k, self._tuning.exact_filter_limit):
            rows = np.flatnonzero(passing)
            return [Candidates(rows, self.columns.keys[rows], count, _NO_QUERY, count)] * len(queries)
        projected = np.stack([self._codes.projection.query(query) for query in queries])
        shares = [evenness(query, self._part_lengths) ** 2 * count / self._size for query in queries]
        if count <= self._tuning.refine_filter_limit:
            rows_per_query = [np.flatnonzero(passing)] * len(queries)
        else:
            selected = None if count == len(self._codes) else passing
            rows_per_query = self._search_codes(projected, shares, min(top_k, count), selected, top_k)
        return [
            Candidates(rows, self.columns.keys[rows], count, query, self._refined(top_k, share))
            for rows, query, share in zip(rows_per_query, projected, shares, strict=True)
        ]

    def rank(self, query: NDArray[np.float32], candidates: Candidates) -> Ranked:
        """Refine candidates and compare the rest exactly. Needs no lock: other threads may change the segment."""
        rows, keys = candidates.rows, candidates.keys
        if len(rows) > candidates.refined:
            similarities = self._files.sq8.similarities(candidates.projected, rows)
            best = np.sort(np.argpartition(-similarities, candidates.refined)[: candidates.refined])
            rows, keys = rows[best], keys[best]
        exact = all_similarities(query, as_float32(self._files.embeddings.read(rows)))
        return Ranked(rows, keys, exact, candidates.compared)

    def without_deleted(self, ranked: Ranked, buffer: WriteBuffer) -> PartialResult:
        """Drop crops that were deleted after the candidates were chosen.

        buffer: the write buffer; maintenance may have moved some of these crops there in the meantime.
        """
        present = self.columns.keys[ranked.rows] == ranked.keys
        for position in np.flatnonzero(~present).tolist():
            present[position] = int(ranked.keys[position]) in buffer
        return PartialResult(ranked.keys[present], ranked.similarities[present], ranked.compared)

    # Maintenance: by one thread at a time, while other threads search and remove crops.

    def track_removals(self) -> None:
        """Record removed keys until `publish`: some of these crops may be staged already."""
        self._removed = []

    def stage(self, keys: NDArray[np.int64], embeddings: NDArray[np.float16], write_lock: WriteLock) -> StagedRows:
        """Write new crops to rows that no search sees before `publish`. Raises OSError if the disk is full."""
        rows = self._free_rows(len(keys))
        size = max(len(self._coded), int(rows.max(initial=-1)) + 1)
        projected = self._codes.projection.crops(embeddings)
        if not self._size:
            self._part_lengths = median_part_lengths(embeddings[sample_rows(len(embeddings), _LENGTHS_SAMPLE)])
        self._files.write(rows, embeddings, projected)
        self._coded = zero_padded(self._coded, size)
        self.columns.reserve(size)
        for start in range(0, len(rows), _CODES_PER_LOCK):
            chunk = slice(start, start + _CODES_PER_LOCK)
            with write_lock():
                self._codes.add(rows[chunk], projected[chunk])
            self._coded[rows[chunk]] = True
        return StagedRows(rows, self._rows.with_more(keys, rows))

    def publish(self, staged: StagedRows, columns: Columns) -> None:
        """Make staged crops visible to searches, except those removed since `track_removals`.

        columns: of the crops, in the order in which they were staged.
        """
        self._rows = staged.rows_of_keys
        self.columns.copy_rows(staged.rows, columns, np.arange(len(columns)))
        self._live = zero_padded(self._live, len(self.columns))
        self._live[staged.rows] = True
        self._size += len(staged.rows)
        removed, self._removed = self._removed or [], None
        for key in removed:
            self.remove(key)

    def compact(self, write_lock: WriteLock) -> None:
        """Remove the codes of deleted crops and overwrite their embeddings with zeros."""
        deleted = self._coded & ~zero_padded(self._live, len(self._coded))
        with write_lock():
            self._codes.remove(deleted)
        rows = np.flatnonzero(deleted)
        self._coded[rows] = False
        for chunk in chunks(rows, CHUNK_ROWS):
            self._files.clear(chunk)

    def autotune(self, check: Check) -> None:
        """Measure the search depth again, for the present number of crops."""
        rows = _FirstRows(self._files.embeddings, len(self._live))
        self._search_depth = autotune(self._codes, self._files.sq8, rows, self._live.copy(), self._tuning, check)

    def live_rows(self) -> NDArray[np.int64]:
        """The rows that hold a crop, ascending."""
        return np.flatnonzero(self._live)

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """The embeddings of rows, for a caller that reads most of them."""
        return self._files.embeddings.read_unmapped(rows)

    def damaged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row differs from what was written."""
        return self._files.damaged(rows)

    def release_pages(self) -> None:
        """Release the mapped pages of embeddings that searches have read."""
        self._files.embeddings.release_pages()

    def close(self) -> None:
        """Delete the files; running searches keep the mapping that they read from."""
        self._files.close()

    def state(self) -> SegmentState:
        """A copy of the state for a snapshot, which later changes do not affect."""
        return SegmentState(self.columns.take(slice(None)), self._files.checksums.copy(), self._coded.copy())

    def save(self, folder: Path, state: SegmentState) -> None:
        """Write a snapshot into a folder on the same disk; embeddings and SQ8 codes are hard links to the live files.

        Later changes overwrite only rows that hold no crop of the state, or a crop that is deleted later. After a
        restore, the changes that follow the snapshot bring these rows up to date.
        """
        state.columns.save(folder / _COLUMNS_FILE)
        np.savez(  # the keys are part of the snapshot format
            folder / _STATE_FILE,
            sums=state.checksums, coded=np.packbits(state.coded), rows=len(state.coded), fine_step=self._files.sq8.step,
        )  # fmt: skip
        self._codes.save(folder)
        (folder / _SEARCH_DEPTH_FILE).write_bytes(_SEARCH_DEPTH.dump_json(self._search_depth, indent=2, by_alias=True))
        self._files.link(folder)

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """Whether a folder holds a saved segment."""
        return (folder / _STATE_FILE).exists()

    @classmethod
    def restore(cls, folder: Path, path: Path, tuning: Tuning) -> Self:
        """Read what `save` wrote; the file of embeddings gets a second name at `path`.

        Raises OSError, ValueError, KeyError, BadZipFile or RuntimeError if the folder holds something else.
        """
        columns = Columns.load(folder / _COLUMNS_FILE)
        with np.load(folder / _STATE_FILE, allow_pickle=False) as saved:
            coded = np.unpackbits(saved["coded"], count=int(saved["rows"])).astype(np.bool_)
            state = SegmentState(columns, saved["sums"], coded)
            step = float(saved["fine_step"])
        search_depth = _SEARCH_DEPTH.validate_json((folder / _SEARCH_DEPTH_FILE).read_bytes())
        codes = IvfCodes.restore(folder)
        if len(codes) != np.count_nonzero(coded):
            raise ValueError(f"there are {len(codes)} codes for {np.count_nonzero(coded)} rows")
        files = SegmentFiles.restore(folder, path, codes.projection.dims, step, state.checksums)
        return cls(files, codes, search_depth, tuning, state)

    def _search_codes(
        self,
        projected: NDArray[np.float32],
        shares: Sequence[float],
        least: int,
        selected: NDArray[np.bool_] | None,
        top_k: int,
    ) -> list[NDArray[np.int64]]:
        """For each projected query, at least `least` candidates; where a search gives fewer, all lists are searched."""
        found = [_NO_ROWS] * len(shares)
        for share in set(shares):
            positions = [position for position, other in enumerate(shares) if other == share]
            nprobe = self._tuning.nprobe or self._search_depth.nprobe(top_k, share)
            candidates = max(top_k, self._tuning.candidates or self._search_depth.candidates(top_k, share))
            rows = self._codes.search(projected[positions], nprobe, candidates, selected)
            rows.sort(axis=1)
            for position, rows_of_query in zip(positions, rows, strict=True):
                found[position] = _without_padding(rows_of_query)
                if len(found[position]) < least:
                    everywhere = self._codes.search(projected[position, None], self.nlist, candidates, selected)[0]
                    found[position] = _without_padding(np.sort(everywhere))
        return found

    def _refined(self, top_k: int, share: float) -> int:
        return max(top_k, self._tuning.refined or self._search_depth.refined(top_k, share))

    def _free_rows(self, count: int) -> NDArray[np.int64]:
        free = np.flatnonzero(~self._coded)[:count]
        return np.concatenate([free, np.arange(len(self._coded), len(self._coded) + count - len(free))])


class _FirstRows:
    """The rows of a file that are written."""

    def __init__(self, file: RowFile[np.float16], count: int) -> None:
        self._file = file
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        return self._file.read_unmapped(rows)


def _without_padding(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted row numbers without FAISS's -1 padding."""
    return rows[rows >= 0] if rows[0] < 0 else rows
