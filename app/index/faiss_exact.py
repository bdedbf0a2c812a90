"""Crops that are all compared with each query: embeddings in memory, compared by FAISS."""

from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.index.columns import Columns
from app.index.nearest import TierFound, nearest
from app.index.port import CropColumns, Filter
from model.architecture import EMBEDDING_DIM

Block = NDArray[np.float32]

BLOCK_ROWS = 4096
"""Rows of a block, 32 MiB: few enough for FAISS to search it in the calling thread. From about 10,000 rows on FAISS
splits one query over its threads, which takes longer on two cores: 9.5 against 6.8 ms for 20,000 rows where the cores
are idle, 24 against 7 ms where they are busy."""


class ExactTier:
    """Crops that are all compared with each query. Not safe among threads: readers together, or one that changes it.

    FAISS's own IndexFlatIP copies all it holds whenever it outgrows its memory, and again to remove a row. Here
    rows lie in blocks that never move, and the search of IndexFlatIP runs over each. A removed row's place is
    taken by the last row. So a change costs what it changes, whatever the gallery's size; nothing removed stays
    in memory; and no search has to pass over dead rows.
    """

    def __init__(self, block_rows: int = BLOCK_ROWS) -> None:
        self._block_rows = block_rows
        self._blocks: list[Block] = []
        self._rows: dict[int, int] = {}  # row of each key
        self.columns = Columns()

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    def add(self, key: int, embedding: NDArray[np.float16], columns: CropColumns) -> None:
        """Add a crop whose key is not there."""
        row = len(self)
        self._make_room(row)
        self._embedding(row)[:] = embedding
        self.columns.append(key, columns)
        self._rows[key] = row

    def remove(self, key: int) -> None:
        """Drop a crop, if it is there."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = len(self.columns) - 1
        if row != last:
            self._embedding(row)[:] = self._embedding(last)
            self._rows[int(self.columns.keys[last])] = row
        self.columns.remove(row)
        if last == (len(self._blocks) - 1) * self._block_rows:
            self._blocks.pop()

    def search(self, query: NDArray[np.float32], which: Filter, top_k: int) -> TierFound:
        """The `top_k` best of each block, or more, among all crops that pass the filter."""
        rows = self.columns.matching(which)
        similarities, found = self._nearest(query, rows, top_k)
        return TierFound(self.columns.keys[found], similarities, len(self) if rows is None else len(rows))

    def embeddings(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The embeddings of those keys that are still there, and which of the keys that are."""
        rows = [self._rows.get(key) for key in keys.tolist()]
        there = [row for row in rows if row is not None]
        embeddings = np.empty((len(there), EMBEDDING_DIM), np.float16)
        for position, row in enumerate(there):
            embeddings[position] = self._embedding(row)
        return embeddings, np.array([row is not None for row in rows], np.bool_)

    def without(self, keys: NDArray[np.int64]) -> "ExactTier":
        """A copy of what is not among these keys."""
        rest = ExactTier(self._block_rows)
        rows = np.flatnonzero(~np.isin(self.columns.keys, keys))
        rest.columns.place(np.arange(len(rows)), self.columns, rows)
        rest._rows = {key: row for row, key in enumerate(rest.columns.keys.tolist())}
        for row, mine in enumerate(rows.tolist()):
            rest._make_room(row)
            rest._embedding(row)[:] = self._embedding(mine)
        return rest

    @classmethod
    def restore(cls, columns: Columns, embeddings: BinaryIO, block_rows: int = BLOCK_ROWS) -> Self:
        """Of columns and the embeddings of their rows. Raises OSError or ValueError where they do not fit."""
        tier = cls(block_rows)
        tier.columns = columns
        tier._rows = {key: row for row, key in enumerate(columns.keys.tolist())}
        if len(tier._rows) != len(columns):
            raise ValueError("several rows have the same key")
        for start in range(0, len(columns), block_rows):
            block = tier._new_block()
            rows = min(block_rows, len(columns) - start)
            block[:rows] = np.fromfile(embeddings, np.float16, rows * EMBEDDING_DIM).reshape(rows, EMBEDDING_DIM)
            tier._blocks.append(block)
        if embeddings.read(1):
            raise ValueError(f"there are more than {len(columns)} embeddings")
        return tier

    def _make_room(self, row: int) -> None:
        if row == len(self._blocks) * self._block_rows:
            self._blocks.append(self._new_block())

    def _nearest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None, top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and rows of the `top_k` best of each block, among all rows or, ascending, among `rows`."""
        similarities, found = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
        for number, block in enumerate(self._blocks):
            start = number * self._block_rows
            filled = block[: len(self) - start]
            if rows is None:
                best = nearest(query, filled, None, top_k)
            else:
                first, end = np.searchsorted(rows, (start, start + self._block_rows))
                best = nearest(query, filled, rows[first:end] - start, top_k)
            similarities.append(best[0])
            found.append(best[1] + start)
        return np.concatenate(similarities), np.concatenate(found)

    def _embedding(self, row: int) -> NDArray[np.float32]:
        block, place = divmod(row, self._block_rows)
        embedding: NDArray[np.float32] = self._blocks[block][place]
        return embedding

    def _new_block(self) -> Block:
        return np.empty((self._block_rows, EMBEDDING_DIM), np.float32)  # takes memory as rows are written
