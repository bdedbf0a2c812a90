"""Which row each key has, in 12 bytes a crop."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

_GONE = -1


class KeyRows:
    """Keys in ascending order and the row of each, in NumPy arrays. Not safe among threads.

    A dictionary of a million entries takes ten times the memory.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)

    @classmethod
    def of(cls, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> Self:
        """Of distinct keys in any order."""
        self = cls()
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order].astype(np.int32)
        return self

    def with_more(self, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> "KeyRows":
        """A map with these keys too, which must not be there yet."""
        there = self._rows != _GONE
        return KeyRows.of(np.concatenate([self._keys[there], keys]), np.concatenate([self._rows[there], rows]))

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None

    def get(self, key: int) -> int | None:
        """The row of a key, if it is there."""
        place = self._place(key)
        return None if place is None else int(self._rows[place])

    def pop(self, key: int) -> int | None:
        """Forget a key, and give its row if it was there."""
        place = self._place(key)
        if place is None:
            return None
        row = int(self._rows[place])
        self._rows[place] = _GONE
        return row

    def _place(self, key: int) -> int | None:
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key or self._rows[place] == _GONE:
            return None
        return place
