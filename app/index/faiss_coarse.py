"""Crops of which only likely ones are compared with a query: codes in memory, finer ones and embeddings on disk."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from app.index.coarse_codes import Check, CoarseCodes
from app.index.coarse_rows import CoarseRows, fine_path
from app.index.columns import FREE, Columns
from app.index.faiss_exact import ExactTier
from app.index.fine_codes import FineCodes, step_for
from app.index.key_rows import KeyRows
from app.index.nearest import TierFound, all_similarities, as_float32
from app.index.part_lengths import evenness, typical_lengths
from app.index.port import Filter
from app.index.probing import Probing, measured
from app.index.row_file import RowFile, row_sums
from app.index.row_numbers import ROWS_AT_ONCE, longer, pieces, sampled
from app.index.tuning import Tuning
from model.architecture import EMBEDDING_DIM

_COLUMNS_FILE = "coarse.npz"
_STATE_FILE = "coarse_state.npz"
_PROBING_FILE = "probing.json"

_PROBING = TypeAdapter(Probing)

_CODES_AT_ONCE = 64
"""Codes that are added while searches wait, for a few milliseconds."""

_STEP_SAMPLE = 4_096

_LENGTHS_SAMPLE = 64

_NO_QUERY = np.empty(0, np.float32)
_NO_ROWS = np.empty(0, np.int64)

Alone = Callable[[], AbstractContextManager[None]]
"""Holds back everybody else who uses the tier."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Rows that may be worth comparing, ascending, with the keys they had; and how many crops pass the filter.

    projected: the query as codes are compared with it. finalists: so many rows are worth it, those that fine codes say.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.int64]
    compared: int
    projected: NDArray[np.float32]
    finalists: int


@dataclass(frozen=True, eq=False)
class Compared:
    """Rows that were compared, the keys they had, their similarities, each `(N,)`; how many crops pass the filter."""

    rows: NDArray[np.int64]
    keys: NDArray[np.int64]
    similarities: NDArray[np.float32]
    compared: int


@dataclass(frozen=True, eq=False)
class Copy:
    """What a snapshot holds of the tier, as it was at one moment."""

    columns: Columns
    sums: NDArray[np.uint64]
    coded: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """How many crops it is of."""
        return int(np.count_nonzero(self.columns.keys != FREE))


@dataclass(frozen=True, eq=False)
class Staged:
    """Rows that have all but their crops, and which row each key has once they have them."""

    rows: NDArray[np.int64]
    rows_of_keys: KeyRows


class CoarseTier:
    """Any number of crops, each in a row that it keeps. Not safe among threads, but for what says so.

    A search takes three steps, each of which looks at fewer crops, more closely: codes in memory propose candidates,
    fine codes on disk say which of them are finalists, and these are compared by their embeddings, so exactly.

    A row is *live* where it holds a crop, *coded* where it has a code. A crop that is removed leaves a code behind,
    which no search looks at; `purge` takes it away, and the row is free for another crop from then on.
    """

    def __init__(self, stored: CoarseRows, codes: CoarseCodes, probing: Probing, tuning: Tuning, copy: Copy) -> None:
        self._stored = stored
        self._codes = codes
        self._probing = probing
        self._tuning = tuning
        self.columns = copy.columns
        self._coded = copy.coded
        self._live: NDArray[np.bool_] = self.columns.keys != FREE
        self._size = int(np.count_nonzero(self._live))
        rows = np.flatnonzero(self._live)
        self._rows = KeyRows.of(self.columns.keys[rows], rows)
        self._part_lengths = typical_lengths(stored.embeddings.read(rows[sampled(len(rows), _LENGTHS_SAMPLE)]))
        self._removed: list[int] | None = None  # keys, since it is watched

    @classmethod
    def build(
        cls, path: Path, columns: Columns, embeddings: Iterable[NDArray[np.float16]], tuning: Tuning, check: Check
    ) -> Self:
        """Of crops by their columns, without free rows, and their embeddings `(N, 2048)`, piece by piece.

        Raises OSError, or what `check` raises.
        """
        with ExitStack() as files:
            file = RowFile(path, EMBEDDING_DIM, np.float16)
            files.callback(file.close)
            sums = np.empty(len(columns), np.uint64)
            start = 0
            for piece in embeddings:
                check()
                end = start + len(piece)
                file.write(np.arange(start, end), piece)
                sums[start:end] = row_sums(piece)
                start = end
            written = _FirstRows(file, len(columns))
            codes = CoarseCodes.train(written, tuning, check)
            step = step_for(codes.projection.crops(written.read(sampled(len(columns), _STEP_SAMPLE))))
            fine = FineCodes(fine_path(path), codes.projection.dims, step)
            files.callback(fine.file.close)
            for some in pieces(np.arange(len(columns)), ROWS_AT_ONCE):
                check()
                projected = codes.projection.crops(written.read(some))
                codes.add(some, projected)
                sums[some] += fine.write(some, projected)
            every = np.ones(len(columns), np.bool_)
            probing = measured(codes, fine, written, every, tuning, check)
            files.pop_all()
        return cls(CoarseRows(file, fine, sums), codes, probing, tuning, Copy(columns, sums, every))

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    @property
    def cells(self) -> int:
        """Into how many cells the codes are sorted."""
        return self._codes.cells

    @property
    def probing(self) -> Probing:
        """What searches do where the tuning does not say it."""
        return self._probing

    @property
    def dead(self) -> int:
        """How many codes are of no crop any more."""
        return len(self._codes) - self._size

    def remove(self, key: int) -> None:
        """Drop a crop, if it is there."""
        if self._removed is not None:
            self._removed.append(key)
        row = self._rows.pop(key)
        if row is not None and self.columns.keys[row] == key:  # not gone already, before `place` says so once more
            self.columns.free(row)
            self._live[row] = False
            self._size -= 1

    def propose(self, queries: NDArray[np.float32], which: Filter, top_k: int) -> list[Proposal]:
        """For each query of `(N, 2048)`, crops that pass the filter and may be among the `top_k` most similar.

        Never fewer than those, if there are. Few that pass are all worth comparing. Of more, all fine codes are looked
        at. Of many, the codes say at which; the more a filter leaves out, the more cells are looked into.
        """
        mask = self.columns.mask(which)
        passing = self._live if mask is None else mask & self._live
        count = self._size if mask is None else int(np.count_nonzero(passing))
        if count <= max(top_k, self._tuning.narrow_limit):
            rows = np.flatnonzero(passing)
            return [Proposal(rows, self.columns.keys[rows], count, _NO_QUERY, count)] * len(queries)
        projected = np.stack([self._codes.projection.query(query) for query in queries])
        shares = [evenness(query, self._part_lengths) ** 2 * count / self._size for query in queries]
        if count <= self._tuning.sifted_limit:
            proposed = [np.flatnonzero(passing)] * len(queries)
        else:
            among = None if count == len(self._codes) else passing
            proposed = self._proposed(projected, shares, min(top_k, count), among, top_k)
        return [
            Proposal(rows, self.columns.keys[rows], count, query, self._finalists(top_k, share))
            for rows, query, share in zip(proposed, projected, shares, strict=True)
        ]

    def compare(self, query: NDArray[np.float32], proposal: Proposal) -> Compared:
        """Exactly, the finalists of what was proposed. Others may change the tier meanwhile."""
        rows, keys = proposal.rows, proposal.keys
        if len(rows) > proposal.finalists:
            similarities = self._stored.fine.similarities(proposal.projected, rows)
            best = np.sort(np.argpartition(-similarities, proposal.finalists)[: proposal.finalists])
            rows, keys = rows[best], keys[best]
        exact = all_similarities(query, as_float32(self._stored.embeddings.read(rows)))
        return Compared(rows, keys, exact, proposal.compared)

    def found(self, compared: Compared, exact: ExactTier) -> TierFound:
        """What was compared, without what was removed meanwhile.

        exact: the other tier, which may have got some of these crops meanwhile.
        """
        there = self.columns.keys[compared.rows] == compared.keys
        for place in np.flatnonzero(~there).tolist():
            there[place] = int(compared.keys[place]) in exact
        return TierFound(compared.keys[there], compared.similarities[there], compared.compared)

    # upkeep: by one thread alone, while others read, and remove crops

    def watch_removals(self) -> None:
        """From now on until `place`, remember what is removed: crops that are on their way here may be among it."""
        self._removed = []

    def stage(self, keys: NDArray[np.int64], embeddings: NDArray[np.float16], alone: Alone) -> Staged:
        """Give new crops rows, which no search sees until they are placed. Raises OSError where the disk is full."""
        rows = self._free_rows(len(keys))
        size = max(len(self._coded), int(rows.max(initial=-1)) + 1)
        projected = self._codes.projection.crops(embeddings)
        if not self._size:
            self._part_lengths = typical_lengths(embeddings[sampled(len(embeddings), _LENGTHS_SAMPLE)])
        self._stored.write(rows, embeddings, projected)
        self._coded = longer(self._coded, size)
        self.columns.reserve(size)
        for start in range(0, len(rows), _CODES_AT_ONCE):
            piece = slice(start, start + _CODES_AT_ONCE)
            with alone():
                self._codes.add(rows[piece], projected[piece])
            self._coded[rows[piece]] = True
        return Staged(rows, self._rows.with_more(keys, rows))

    def place(self, staged: Staged, columns: Columns) -> None:
        """From now on, these rows hold their crops, but for those that were removed since it is watched.

        columns: of the crops, in the order in which they were staged.
        """
        self._rows = staged.rows_of_keys
        self.columns.place(staged.rows, columns, np.arange(len(columns)))
        self._live = longer(self._live, len(self.columns))
        self._live[staged.rows] = True
        self._size += len(staged.rows)
        removed, self._removed = self._removed or [], None
        for key in removed:
            self.remove(key)

    def purge(self, alone: Alone) -> None:
        """Take away codes and embeddings of what was removed."""
        gone = self._coded & ~longer(self._live, len(self._coded))
        with alone():
            self._codes.remove(gone)
        rows = np.flatnonzero(gone)
        self._coded[rows] = False
        for piece in pieces(rows, ROWS_AT_ONCE):
            self._stored.clear(piece)

    def measure(self, check: Check) -> None:
        """Find out what searches have to do, now that there are so many crops."""
        rows = _FirstRows(self._stored.embeddings, len(self._live))
        self._probing = measured(self._codes, self._stored.fine, rows, self._live.copy(), self._tuning, check)

    def live_rows(self) -> NDArray[np.int64]:
        """The rows that hold a crop, ascending."""
        return np.flatnonzero(self._live)

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """The embeddings of rows, for whoever reads all."""
        return self._stored.embeddings.read_past_memory(rows)

    def damaged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of rows, which are not what was written."""
        return self._stored.damaged(rows)

    def release(self) -> None:
        """Let go of the embeddings that searches have read."""
        self._stored.embeddings.release()

    def close(self) -> None:
        """Delete the files; searches that go on keep what they read from."""
        self._stored.close()

    def copy(self) -> Copy:
        """What a snapshot should hold; later changes leave it alone."""
        return Copy(self.columns.selected(slice(None)), self._stored.sums.copy(), self._coded.copy())

    def save(self, folder: Path, copy: Copy) -> None:
        """Write files into a folder on the same disk: the embeddings and fine codes there are the same files as here.

        These go on changing, but not where a crop of the copy has its row and is not removed later; and who
        restores the copy takes in the changes after it.
        """
        copy.columns.save(folder / _COLUMNS_FILE)
        np.savez(
            folder / _STATE_FILE,
            sums=copy.sums, coded=np.packbits(copy.coded), rows=len(copy.coded), fine_step=self._stored.fine.step,
        )  # fmt: skip
        self._codes.save(folder)
        (folder / _PROBING_FILE).write_bytes(_PROBING.dump_json(self._probing, indent=2))
        self._stored.link(folder)

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """Whether `save` wrote into a folder."""
        return (folder / _STATE_FILE).exists()

    @classmethod
    def restore(cls, folder: Path, path: Path, tuning: Tuning) -> Self:
        """Read what `save` wrote, with the file of embeddings at `path`.

        Raises OSError, ValueError, KeyError, BadZipFile or RuntimeError if it is not that.
        """
        columns = Columns.load(folder / _COLUMNS_FILE)
        with np.load(folder / _STATE_FILE, allow_pickle=False) as state:
            coded = np.unpackbits(state["coded"], count=int(state["rows"])).astype(np.bool_)
            copy = Copy(columns, state["sums"], coded)
            step = float(state["fine_step"])
        probing = _PROBING.validate_json((folder / _PROBING_FILE).read_bytes())
        codes = CoarseCodes.restore(folder)
        if len(codes) != np.count_nonzero(coded):
            raise ValueError(f"there are {len(codes)} codes of {np.count_nonzero(coded)} rows")
        stored = CoarseRows.restore(folder, path, codes.projection.dims, step, copy.sums)
        return cls(stored, codes, probing, tuning, copy)

    def _proposed(
        self,
        projected: NDArray[np.float32],
        shares: Sequence[float],
        least: int,
        among: NDArray[np.bool_] | None,
        top_k: int,
    ) -> list[NDArray[np.int64]]:
        """For each projected query, at least so many candidates."""
        proposed = [_NO_ROWS] * len(shares)
        for share in set(shares):
            places = [place for place, one in enumerate(shares) if one == share]
            probes = self._tuning.probes or self._probing.probes(top_k, share)
            candidates = max(top_k, self._tuning.candidates or self._probing.candidates(top_k, share))
            rows = self._codes.propose(projected[places], probes, candidates, among)
            rows.sort(axis=1)
            for place, mine in zip(places, rows, strict=True):
                proposed[place] = _taken(mine)
                if len(proposed[place]) < least:
                    mine = np.sort(self._codes.propose(projected[place, None], self.cells, candidates, among)[0])
                    proposed[place] = _taken(mine)
        return proposed

    def _finalists(self, top_k: int, share: float) -> int:
        return max(top_k, self._tuning.finalists or self._probing.finalists(top_k, share))

    def _free_rows(self, count: int) -> NDArray[np.int64]:
        free = np.flatnonzero(~self._coded)[:count]
        return np.concatenate([free, np.arange(len(self._coded), len(self._coded) + count - len(free))])


class _FirstRows:
    """The rows of a file that were written so far."""

    def __init__(self, file: RowFile[np.float16], count: int) -> None:
        self._file = file
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        return self._file.read_past_memory(rows)


def _taken(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of rows as FAISS fills them up, in ascending order, those that are some."""
    return rows[rows >= 0] if rows[0] < 0 else rows
