"""The write buffer of the index: crops whose embeddings are in memory and all compared with each query by FAISS."""

from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.index.columns import Columns
from app.index.nearest import PartialResult, nearest
from app.index.port import CropColumns, Filter
from model.architecture import EMBEDDING_DIM

Block = NDArray[np.float32]

BLOCK_ROWS = 4096
"""Rows of a block, 32 MiB: few enough for FAISS to search it in the calling thread. From about 10,000 rows on, FAISS
splits one query over its threads, which is slower on two cores: 9.5 against 6.8 ms for 20,000 rows if the cores are
idle, 24 against 7 ms if they are busy."""


class WriteBuffer:
    """Crops that are all compared with each query. Not thread-safe: either several readers, or one writer.

    FAISS's IndexFlatIP copies all its rows when it outgrows its memory, and again to remove a row. Here, rows lie in
    blocks that never move, and the search of IndexFlatIP runs over each block. The last row takes the place of a
    removed row. So the cost of a change does not depend on the gallery's size, deleted embeddings leave the memory at
    once, and a search skips no deleted rows.
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
        """Add a crop whose key is not present."""
        row = len(self)
        self._reserve(row)
        self._embedding(row)[:] = embedding
        self.columns.append(key, columns)
        self._rows[key] = row

    def remove(self, key: int) -> None:
        """Delete a crop, if it is present."""
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

    def search(self, query: NDArray[np.float32], crop_filter: Filter, top_k: int) -> PartialResult:
        """Among all crops that pass the filter, the `top_k` best of each block."""
        rows = self.columns.matching_rows(crop_filter)
        similarities, found = self._nearest(query, rows, top_k)
        return PartialResult(self.columns.keys[found], similarities, len(self) if rows is None else len(rows))

    def embeddings(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The embeddings of those keys that are present, and for each key whether it is."""
        rows = [self._rows.get(key) for key in keys.tolist()]
        present = [row for row in rows if row is not None]
        embeddings = np.empty((len(present), EMBEDDING_DIM), np.float16)
        for position, row in enumerate(present):
            embeddings[position] = self._embedding(row)
        return embeddings, np.array([row is not None for row in rows], np.bool_)

    def without(self, keys: NDArray[np.int64]) -> "WriteBuffer":
        """A copy without these keys."""
        copy = WriteBuffer(self._block_rows)
        kept_rows = np.flatnonzero(~np.isin(self.columns.keys, keys))
        copy.columns.copy_rows(np.arange(len(kept_rows)), self.columns, kept_rows)
        copy._rows = {key: row for row, key in enumerate(copy.columns.keys.tolist())}
        for row, kept_row in enumerate(kept_rows.tolist()):
            copy._reserve(row)
            copy._embedding(row)[:] = self._embedding(kept_row)
        return copy

    @classmethod
    def restore(cls, columns: Columns, embeddings: BinaryIO, block_rows: int = BLOCK_ROWS) -> Self:
        """Read the embeddings of the columns' rows. Raises OSError, or ValueError if their numbers differ."""
        buffer = cls(block_rows)
        buffer.columns = columns
        buffer._rows = {key: row for row, key in enumerate(columns.keys.tolist())}
        if len(buffer._rows) != len(columns):
            raise ValueError("several rows have the same key")
        for start in range(0, len(columns), block_rows):
            block = buffer._new_block()
            rows = min(block_rows, len(columns) - start)
            block[:rows] = np.fromfile(embeddings, np.float16, rows * EMBEDDING_DIM).reshape(rows, EMBEDDING_DIM)
            buffer._blocks.append(block)
        if embeddings.read(1):
            raise ValueError(f"there are more than {len(columns)} embeddings")
        return buffer

    def _reserve(self, row: int) -> None:
        if row == len(self._blocks) * self._block_rows:
            self._blocks.append(self._new_block())

    def _nearest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64] | None, top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and rows of the `top_k` best of each block, among all rows or among ascending `rows`."""
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
        block, position = divmod(row, self._block_rows)
        embedding: NDArray[np.float32] = self._blocks[block][position]
        return embedding

    def _new_block(self) -> Block:
        return np.empty((self._block_rows, EMBEDDING_DIM), np.float32)  # the system allocates pages as rows are written
