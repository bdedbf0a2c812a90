"""The columns of an index: keys and the fields that filters test, in NumPy arrays."""

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.index.port import AtLeast, Condition, CropColumns, Filter, HasAttribute, OneOf
from app.kit.canonical import canonical_json

_NUMBERS = ("key", "captured_at")
_TEXTS = ("camera_id", "track_id", "person_id", "attributes")
_NONE = -1
_STALE_TEXTS = 1024
_MIN_ROWS = 1024

FREE = -1
"""The key of a row that holds no crop."""


class Columns:
    """Columns with a row for each crop. Not thread-safe.

    Rows are either contiguous (`append`, `remove`: the last row takes the place of a removed row) or stay in their
    places (`copy_rows`, `free`): a free row has the key FREE. Text columns are dictionary-encoded.
    """

    def __init__(self) -> None:
        self._size = 0
        self._arrays: dict[str, NDArray[Any]] = {
            **{name: np.empty(0, np.int64) for name in _NUMBERS},
            **{name: np.empty(0, np.int32) for name in _TEXTS},
        }
        self._texts = {name: _Dictionary() for name in _TEXTS}
        self._pairs = _AttributePairs()

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> NDArray[np.int64]:
        """The key of each row, `(N,)`; a view that is valid until the next change."""
        return self._column("key")

    def append(self, key: int, columns: CropColumns) -> None:
        """Add a row."""
        self._reserve(self._size + 1)
        self._size += 1
        self._arrays["key"][self._size - 1] = key
        self.set(self._size - 1, columns)

    def set(self, row: int, columns: CropColumns) -> None:
        """Set the fields of a row, which keeps its key."""
        self._arrays["captured_at"][row] = columns.captured_at
        for name, texts in self._texts.items():
            self._arrays[name][row] = texts.code(getattr(columns, name))
        self._add_new_attribute_pairs()
        self._drop_stale_texts()

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        self._size -= 1
        for column in self._arrays.values():
            column[row] = column[self._size]
        self._drop_stale_texts()

    def copy_rows(self, rows: NDArray[np.int64], other: "Columns", other_rows: NDArray[np.int64]) -> None:
        """Copy rows of other columns to distinct rows here; rows may be beyond the end, and gaps become free rows."""
        size = max(self._size, int(rows.max(initial=-1)) + 1)
        self._reserve(size)
        self._arrays["key"][self._size : size] = FREE
        self._size = size
        for name, column in self._arrays.items():
            values = other._column(name)[other_rows]
            column[rows] = self._texts[name].codes_of(other._texts[name], values) if name in self._texts else values
        self._add_new_attribute_pairs()

    def free(self, row: int) -> None:
        """Mark a row as free."""
        self._arrays["key"][row] = FREE

    def matching_rows(self, crop_filter: Filter) -> NDArray[np.int64] | None:
        """The rows that pass the filter, ascending, or None if it has no conditions."""
        mask = self.mask(crop_filter)
        return None if mask is None else np.flatnonzero(mask).astype(np.int64, copy=False)

    def mask(self, crop_filter: Filter) -> NDArray[np.bool_] | None:
        """Whether each row passes the filter, or None if it has no conditions. Values of free rows are undefined."""
        masks = [self._meets(condition) for condition in crop_filter.conditions()]
        if not masks:
            return None
        mask = masks[0]
        for other in masks[1:]:
            mask &= other
        return mask

    def take(self, rows: slice | NDArray[np.int64]) -> "Columns":
        """A copy of rows that later changes do not affect. Dictionaries are shared, as they are append-only."""
        columns = Columns()
        columns._arrays = {name: self._column(name)[rows].copy() for name in self._arrays}
        columns._texts = dict(self._texts)
        columns._pairs = self._pairs
        columns._size = len(columns._arrays["key"])
        return columns

    def save(self, path: Path) -> None:
        """Write to a file of NumPy's npz format, without fields of free rows and texts that no row uses any more."""
        is_free = self.keys == FREE
        arrays: dict[str, Any] = {"key": self.keys, "captured_at": np.where(is_free, 0, self._column("captured_at"))}
        for name, texts in self._texts.items():
            used, arrays[name] = texts.trimmed(np.where(is_free, _NONE, self._column(name)))
            arrays[f"{name}_texts"] = _as_bytes(used)
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises OSError, ValueError, KeyError or BadZipFile if the file is damaged."""
        columns = cls()
        with np.load(path, allow_pickle=False) as file:
            columns._arrays = {name: file[name] for name in columns._arrays}
            columns._texts = {name: _Dictionary(json.loads(file[f"{name}_texts"].tobytes())) for name in _TEXTS}
            columns._pairs = _AttributePairs.of(columns._texts["attributes"])
        columns._size = len(columns._arrays["key"])
        return columns

    def _drop_stale_texts(self) -> None:
        """Drop texts that no row uses any more, from time to time: each track brings a new text."""
        for name, texts in self._texts.items():
            if len(texts) > 2 * self._size + _STALE_TEXTS:
                self._drop_unused_texts(name)

    def _drop_unused_texts(self, name: str) -> None:
        self._texts[name], self._column(name)[:] = self._texts[name].trimmed(self._column(name))
        if name == "attributes":
            self._pairs = _AttributePairs.of(self._texts[name])

    def _add_new_attribute_pairs(self) -> None:
        texts = self._texts["attributes"]
        while len(self._pairs) < len(texts):
            self._pairs.add(texts.text(len(self._pairs)))

    def _column(self, name: str) -> NDArray[Any]:
        return self._arrays[name][: self._size]

    def _meets(self, condition: Condition) -> NDArray[np.bool_]:
        match condition:
            case OneOf(name, texts, negated):
                codes = [code for text in texts if (code := self._texts[name].known_code(text)) is not None]
                meets = self._has_code(name, np.array(codes, np.int32))
            case AtLeast(name, bound, negated):
                meets = self._column(name) >= bound
            case HasAttribute(name, value):
                meets, negated = self._has_code("attributes", self._pairs.codes_with((name, value))), False
        return ~meets if negated else meets

    def _has_code(self, name: str, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each row has one of these codes."""
        column = self._column(name)
        if len(codes) == 1:  # a comparison is much faster than isin
            has: NDArray[np.bool_] = column == codes[0]
            return has
        return np.isin(column, codes)

    def _reserve(self, rows: int) -> None:
        for name, old in self._arrays.items():
            if len(old) < rows:
                new = np.empty(max(_MIN_ROWS, rows + rows // 8), old.dtype)
                new[: self._size] = old[: self._size]
                self._arrays[name] = new


class _Dictionary:
    """The distinct texts of a column. The code of a text, which rows hold, is its position here; -1 means no text."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._all = list(texts)
        self._codes = {text: code for code, text in enumerate(self._all)}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def code(self, text: str | None) -> int:
        """The code of a text; a new text is added."""
        if text is None:
            return _NONE
        code = self._codes.setdefault(text, len(self._all))
        if code == len(self._all):
            self._all.append(text)
        return code

    def codes_of(self, other: "_Dictionary", codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Translate codes of another dictionary to codes of this one; new texts are added."""
        distinct, positions = np.unique(codes, return_inverse=True)
        translated = [_NONE if code == _NONE else self.code(other._all[code]) for code in distinct.tolist()]
        return np.array(translated, np.int32)[positions]

    def text(self, code: int) -> str:
        """The text of a code."""
        return self._all[code]

    def known_code(self, text: str) -> int | None:
        """The code of a text, or None if it is unknown."""
        return self._codes.get(text)

    def trimmed(self, codes: NDArray[np.int32]) -> tuple["_Dictionary", NDArray[np.int32]]:
        """A dictionary of only the texts that `codes` use, and their codes in it."""
        used = np.unique(codes[codes != _NONE])
        translated = np.where(codes == _NONE, _NONE, np.searchsorted(used, codes))
        return _Dictionary(self._all[code] for code in used), translated.astype(np.int32)


class _AttributePairs:
    """An inverted index: for each pair of an attribute's name and value, the codes of the attributes that have it."""

    def __init__(self) -> None:
        self._count = 0
        self._codes: dict[tuple[str, str], array[int]] = {}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """The pairs of attributes, given in the order of their codes. Raises ValueError if one is no JSON object."""
        pairs = cls()
        for text in texts:
            pairs.add(text)
        return pairs

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """Add the attributes of the next code. Raises ValueError if they are no JSON object."""
        attributes = json.loads(text)
        if not isinstance(attributes, dict):
            raise ValueError(f"attributes are a JSON object, not {text}")
        for name, value in attributes.items():
            self._codes.setdefault((name, canonical_json(value)), array("i")).append(self._count)
        self._count += 1

    def codes_with(self, pair: tuple[str, str]) -> NDArray[np.int32]:
        """The codes of the attributes that have a pair."""
        return np.array(self._codes.get(pair, array("i")), np.int32)


def _as_bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Texts as JSON for a file: in NumPy's text arrays, each text would take the space of the longest."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)
