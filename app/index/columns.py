"""The keys of an index's rows and what filters look at, in NumPy arrays."""

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.index.port import CropColumns, Filter
from app.kit.canonical import canonical_json

_NUMBERS = ("key", "captured_at")
_TEXTS = ("camera_id", "track_id", "person_id", "attributes")
_NONE = -1
_TEXTS_BEFORE_TRIM = 1024
_LEAST_ROWS = 1024

FREE = -1
"""The key of a row that holds no crop."""


class Columns:
    """One row a crop. Not safe among threads.

    Rows either lie without gaps (`append`, `remove`: the last row takes a removed one's place) or stay where they were
    put (`place`, `free`); whoever has free rows looks for their key.
    """

    def __init__(self) -> None:
        self._size = 0
        self._arrays: dict[str, NDArray[Any]] = {
            **{name: np.empty(0, np.int64) for name in _NUMBERS},
            **{name: np.empty(0, np.int32) for name in _TEXTS},
        }
        self._texts = {name: _Texts() for name in _TEXTS}
        self._pairs = _Pairs()

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> NDArray[np.int64]:
        """The key of each row, `(N,)`; a view that holds until the next change."""
        return self._column("key")

    def append(self, key: int, columns: CropColumns) -> None:
        """Add a row."""
        self._reserve(self._size + 1, *self._arrays)
        self._arrays["key"][self._size] = key
        self._arrays["captured_at"][self._size] = columns.captured_at
        for name, texts in self._texts.items():
            self._arrays[name][self._size] = texts.code(getattr(columns, name))
        self._look_at_new_attributes()
        self._size += 1

    def remove(self, row: int) -> None:
        """Drop a row; the last row moves into its place."""
        self._size -= 1
        for column in self._arrays.values():
            column[row] = column[self._size]
        for name, texts in self._texts.items():
            # Tracks come and go with their crops: forget the texts of gone ones, now and then.
            if len(texts) > 2 * self._size + _TEXTS_BEFORE_TRIM:
                self._texts[name], self._column(name)[:] = texts.trimmed(self._column(name))
                if name == "attributes":
                    self._pairs = _Pairs.of(self._texts[name])

    def place(self, rows: NDArray[np.int64], other: "Columns", other_rows: NDArray[np.int64]) -> None:
        """Copy rows of other columns to distinct rows here, also beyond the end; what lies between them is free."""
        size = max(self._size, int(rows.max(initial=-1)) + 1)
        self._reserve(size, *self._arrays)
        self._arrays["key"][self._size : size] = FREE
        self._size = size
        for name, column in self._arrays.items():
            values = other._column(name)[other_rows]
            column[rows] = self._texts[name].codes_of(other._texts[name], values) if name in self._texts else values
        self._look_at_new_attributes()

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, as far as that can be done while others read, and free rows."""
        self._reserve(rows, *(name for name in self._arrays if name != "key"))

    def free(self, row: int) -> None:
        """Note that a row holds no crop any more."""
        self._arrays["key"][row] = FREE

    def of(self, row: int) -> CropColumns:
        """What a row holds, beside its key."""
        texts = {name: texts.text(int(self._arrays[name][row])) for name, texts in self._texts.items()}
        return CropColumns(captured_at=int(self._arrays["captured_at"][row]), **texts)

    def matching(self, which: Filter) -> NDArray[np.int64] | None:
        """The rows that pass the filter, ascending, or None where it tests nothing."""
        mask = self.mask(which)
        return None if mask is None else np.flatnonzero(mask).astype(np.int64, copy=False)

    def mask(self, which: Filter) -> NDArray[np.bool_] | None:
        """Of each row whether it passes the filter, whatever free ones give, or None where it tests nothing."""
        tests: list[NDArray[np.bool_]] = []
        if which.camera_ids:
            tests.append(self._is_any("camera_id", which.camera_ids))
        if which.exclude_camera_ids:
            tests.append(~self._is_any("camera_id", which.exclude_camera_ids))
        if which.captured_from is not None:
            tests.append(self._column("captured_at") >= which.captured_from)
        if which.captured_to is not None:
            tests.append(self._column("captured_at") < which.captured_to)
        if which.person_id is not None:
            tests.append(self._is_any("person_id", [which.person_id]))
        if which.track_id is not None:
            tests.append(self._is_any("track_id", [which.track_id]))
        tests += [self._has_code("attributes", self._pairs.codes_with(pair)) for pair in which.attributes]
        if not tests:
            return None
        mask = tests[0]
        for test in tests[1:]:
            mask &= test
        return mask

    def selected(self, rows: slice | NDArray[np.int64]) -> "Columns":
        """A copy of some rows that later changes leave alone. Texts are shared, as they only ever become more."""
        columns = Columns()
        columns._arrays = {name: self._column(name)[rows].copy() for name in self._arrays}
        columns._texts = dict(self._texts)
        columns._pairs = self._pairs
        columns._size = len(columns._arrays["key"])
        return columns

    def save(self, path: Path) -> None:
        """Write to a file of NumPy's npz format."""
        arrays: dict[str, Any] = {name: self._column(name) for name in self._arrays}
        arrays |= {f"{name}_texts": _as_bytes(texts) for name, texts in self._texts.items()}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises OSError, ValueError, KeyError or BadZipFile if it is not that."""
        columns = cls()
        with np.load(path, allow_pickle=False) as file:
            columns._arrays = {name: file[name] for name in columns._arrays}
            columns._texts = {name: _Texts(json.loads(file[f"{name}_texts"].tobytes())) for name in _TEXTS}
            columns._pairs = _Pairs.of(columns._texts["attributes"])
        columns._size = len(columns._arrays["key"])
        return columns

    def _look_at_new_attributes(self) -> None:
        texts = self._texts["attributes"]
        while len(self._pairs) < len(texts):
            self._pairs.add(texts.text(len(self._pairs)))

    def _column(self, name: str) -> NDArray[Any]:
        return self._arrays[name][: self._size]

    def _is_any(self, name: str, texts: Iterable[str]) -> NDArray[np.bool_]:
        codes = [code for text in texts if (code := self._texts[name].known_code(text)) is not None]
        return self._has_code(name, np.array(codes, np.int32))

    def _has_code(self, name: str, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Of each row whether it has one of these codes."""
        column = self._column(name)
        if len(codes) == 1:  # much faster than NumPy's isin
            has: NDArray[np.bool_] = column == codes[0]
            return has
        return np.isin(column, codes)

    def _reserve(self, rows: int, *names: str) -> None:
        for name in names:
            old = self._arrays[name]
            if len(old) < rows:
                new = np.empty(max(_LEAST_ROWS, rows + rows // 8), old.dtype)
                new[: self._size] = old[: self._size]
                self._arrays[name] = new


class _Texts:
    """The distinct texts of one column. Rows hold codes: the position of their text here, or -1 for none."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._all = list(texts)
        self._codes = {text: code for code, text in enumerate(self._all)}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def after(self, code: int) -> list[str]:
        """The texts from a code on, in their order."""
        return self._all[code:]

    def code(self, text: str | None) -> int:
        """The code of a text, which is new from now on if it was not known."""
        if text is None:
            return _NONE
        code = self._codes.setdefault(text, len(self._all))
        if code == len(self._all):
            self._all.append(text)
        return code

    def codes_of(self, other: "_Texts", codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """What codes of other texts are here, where the texts are new from now on if they were not known."""
        distinct, places = np.unique(codes, return_inverse=True)
        named = [_NONE if code == _NONE else self.code(other._all[code]) for code in distinct.tolist()]
        return np.array(named, np.int32)[places]

    def text(self, code: int) -> Any:
        """The text of a code, or None."""
        return None if code == _NONE else self._all[code]

    def known_code(self, text: str) -> int | None:
        """The code of a text, or None if no row can have it."""
        return self._codes.get(text)

    def trimmed(self, codes: NDArray[np.int32]) -> tuple["_Texts", NDArray[np.int32]]:
        """Only the texts that `codes` use, and the codes that mean the same by them."""
        used = np.unique(codes[codes != _NONE])
        renamed = np.where(codes == _NONE, _NONE, np.searchsorted(used, codes))
        return _Texts(self._all[code] for code in used), renamed.astype(np.int32)


class _Pairs:
    """Which of the distinct attributes have which pair of a name and a value; by their codes, which count from 0."""

    def __init__(self) -> None:
        self._count = 0
        self._codes: dict[tuple[str, str], array[int]] = {}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Those of the attributes, in the order of their codes. Raises ValueError if one is no JSON object."""
        pairs = cls()
        for text in texts:
            pairs.add(text)
        return pairs

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """Take in the attributes of the next code, a JSON object. Raises ValueError if it is none."""
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
    """Texts for a file: NumPy's own text arrays would give each the length of the longest."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)
