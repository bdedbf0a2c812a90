"""A map from keys to row numbers that takes 12 bytes a crop."""

from collections.abc import Iterable

import numpy as np

_MERGED_SHARE = 32
_MIN_MERGED = 1_000
_REMOVED = -1


class KeyRows:
    """Sorted keys and the row of each in NumPy arrays, and a dictionary of the newest. Not thread-safe.

    A dictionary of a million entries takes ten times the memory.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)
        self._newest: dict[int, int] = {}

    def add(self, keys: Iterable[int], rows: Iterable[int]) -> None:
        """Add keys that are not present."""
        self._newest.update(zip(keys, rows, strict=True))
        if len(self._newest) > max(_MIN_MERGED, len(self._keys) // _MERGED_SHARE):
            self._merge()

    def __contains__(self, key: int) -> bool:
        return key in self._newest or self._position(key) is not None

    def row(self, key: int) -> int | None:
        """The row of a key, or None if it is not present."""
        if key in self._newest:
            return self._newest[key]
        position = self._position(key)
        return None if position is None else int(self._rows[position])

    def pop(self, key: int) -> int | None:
        """Remove a key and return its row, or None if it is not present."""
        if key in self._newest:
            return self._newest.pop(key)
        position = self._position(key)
        if position is None:
            return None
        row = int(self._rows[position])
        self._rows[position] = _REMOVED
        return row

    def _merge(self) -> None:
        """Move the newest keys into the arrays."""
        keys = np.array(sorted(self._newest), np.int64)
        rows = np.array([self._newest[key] for key in keys.tolist()], np.int32)
        present = self._rows != _REMOVED
        kept_keys, kept_rows = self._keys[present], self._rows[present]
        places = np.searchsorted(kept_keys, keys)
        self._keys, self._rows = np.insert(kept_keys, places, keys), np.insert(kept_rows, places, rows)
        self._newest = {}

    def _position(self, key: int) -> int | None:
        position = int(np.searchsorted(self._keys, key))
        if position == len(self._keys) or self._keys[position] != key or self._rows[position] == _REMOVED:
            return None
        return position
