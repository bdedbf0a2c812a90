"""The write buffer of the index: the newest crops, whose embeddings are all compared with each query."""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.index.columns import Columns
from app.index.nearest import PartialResult, nearest
from app.index.port import CropColumns, Filter
from model.architecture import EMBEDDING_DIM

_MIN_ROWS = 256

# Names of files in snapshots.
_COLUMNS_FILE, _EMBEDDINGS_FILE = "columns.npz", "embeddings.f16"


class WriteBuffer:
    """Crops in contiguous rows. Not thread-safe: either several readers, or one writer.

    The last row takes the place of a removed one, so a deleted embedding leaves the memory at once.
    """

    def __init__(self) -> None:
        self._embeddings: NDArray[np.float32] = np.zeros((_MIN_ROWS, EMBEDDING_DIM), np.float32)
        self._rows: dict[int, int] = {}  # row of each key
        self.columns = Columns()

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    def add(self, key: int, embedding: NDArray[np.float16], columns: CropColumns) -> None:
        """Add a crop whose key is not present."""
        row = len(self)
        if row == len(self._embeddings):
            self._embeddings = np.concatenate([self._embeddings, np.zeros_like(self._embeddings)])
        self._embeddings[row] = embedding
        self.columns.append(key, columns)
        self._rows[key] = row

    def set(self, key: int, columns: CropColumns) -> None:
        """Set the fields of a present crop."""
        self.columns.set(self._rows[key], columns)

    def remove(self, key: int) -> None:
        """Delete a crop, if it is present."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = len(self) - 1
        if row != last:
            self._embeddings[row] = self._embeddings[last]
            self._rows[int(self.columns.keys[last])] = row
        self._embeddings[last] = 0
        self.columns.remove(row)

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> PartialResult:
        """For each query, the `top_k` most similar crops that pass the filter."""
        rows = self.columns.matching_rows(crop_filter)
        compared = len(self) if rows is None else len(rows)
        similarities, found = nearest(queries, self._embeddings[: len(self)], rows, top_k)
        return PartialResult(self.columns.keys[found], similarities, compared)

    @property
    def reserved(self) -> NDArray[np.float32]:
        """The memory of the embeddings, `(N, 2048)`: the rows of crops, then zeros."""
        return self._embeddings

    def last(self, count: int) -> tuple[Columns, NDArray[np.float16]]:
        """A copy of the last `count` rows, or of all if there are fewer."""
        rows = slice(max(0, len(self) - count), len(self))
        return self.columns.take(rows), self._embeddings[rows].astype(np.float16)

    @staticmethod
    def save(folder: Path, columns: Columns, embeddings: NDArray[np.float16]) -> None:
        """Write a snapshot of these rows, copies of the buffer's."""
        columns.save(folder / _COLUMNS_FILE)
        embeddings.tofile(folder / _EMBEDDINGS_FILE)

    @classmethod
    def restore(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises OSError, ValueError, KeyError or BadZipFile if the folder holds no buffer."""
        buffer = cls()
        buffer.columns = Columns.load(folder / _COLUMNS_FILE)
        buffer._rows = {key: row for row, key in enumerate(buffer.columns.keys.tolist())}
        if len(buffer._rows) != len(buffer.columns):
            raise ValueError("several rows have the same key")
        embeddings = np.fromfile(folder / _EMBEDDINGS_FILE, np.float16)
        if len(embeddings) != len(buffer) * EMBEDDING_DIM:
            raise ValueError(f"there are not {len(buffer)} embeddings")
        if len(buffer):
            buffer._embeddings = embeddings.reshape(-1, EMBEDDING_DIM).astype(np.float32)
        return buffer
