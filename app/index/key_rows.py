"""A map from keys to row numbers that takes 12 bytes a crop."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

_REMOVED = -1


class KeyRows:
    """Sorted keys and the row of each, in NumPy arrays. Not thread-safe.

    A dictionary of a million entries takes ten times the memory.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)

    @classmethod
    def of(cls, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> Self:
        """A map of distinct keys in any order."""
        self = cls()
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order].astype(np.int32)
        return self

    def with_more(self, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> "KeyRows":
        """A new map with additional keys, which must not be in this one."""
        present = self._rows != _REMOVED
        return KeyRows.of(np.concatenate([self._keys[present], keys]), np.concatenate([self._rows[present], rows]))

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None

    def get(self, key: int) -> int | None:
        """The row of a key, or None."""
        position = self._position(key)
        return None if position is None else int(self._rows[position])

    def pop(self, key: int) -> int | None:
        """Remove a key and return its row, or None if it is not present."""
        position = self._position(key)
        if position is None:
            return None
        row = int(self._rows[position])
        self._rows[position] = _REMOVED
        return row

    def _position(self, key: int) -> int | None:
        position = int(np.searchsorted(self._keys, key))
        if position == len(self._keys) or self._keys[position] != key or self._rows[position] == _REMOVED:
            return None
        return position
