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


class Columns:
    """One row a crop, without gaps: a removed row's place is taken by the last one. Not safe among threads."""

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
        if self._size == len(self._arrays["key"]):
            self._reserve(max(1024, 2 * self._size))
        self._arrays["key"][self._size] = key
        self._arrays["captured_at"][self._size] = columns.captured_at
        for name, texts in self._texts.items():
            self._arrays[name][self._size] = texts.code(getattr(columns, name))
        if columns.attributes is not None and len(self._pairs) < len(self._texts["attributes"]):
            self._pairs.add(columns.attributes)
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

    def matching(self, which: Filter) -> NDArray[np.int64] | None:
        """The rows that pass the filter, ascending, or None where it tests nothing."""
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
        tests += [np.isin(self._column("attributes"), self._pairs.codes_with(pair)) for pair in which.attributes]
        if not tests:
            return None
        return np.flatnonzero(np.logical_and.reduce(tests)).astype(np.int64, copy=False)

    def selected(self, rows: slice | NDArray[np.int64]) -> "Columns":
        """A copy of some rows that later changes leave alone."""
        columns = Columns()
        columns._arrays = {name: self._column(name)[rows].copy() for name in self._arrays}
        columns._texts = {name: _Texts(texts) for name, texts in self._texts.items()}
        columns._pairs = self._pairs.copy()
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

    def _column(self, name: str) -> NDArray[Any]:
        return self._arrays[name][: self._size]

    def _is_any(self, name: str, texts: Iterable[str]) -> NDArray[np.bool_]:
        codes = [code for text in texts if (code := self._texts[name].known_code(text)) is not None]
        return np.isin(self._column(name), np.array(codes, np.int32))

    def _reserve(self, rows: int) -> None:
        for name, old in self._arrays.items():
            self._arrays[name] = np.empty(rows, old.dtype)
            self._arrays[name][: self._size] = old[: self._size]


class _Texts:
    """The distinct texts of one column. Rows hold codes: the position of their text here, or -1 for none."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._all = list(texts)
        self._codes = {text: code for code, text in enumerate(self._all)}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def code(self, text: str | None) -> int:
        """The code of a text, which is new from now on if it was not known."""
        if text is None:
            return _NONE
        code = self._codes.setdefault(text, len(self._all))
        if code == len(self._all):
            self._all.append(text)
        return code

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

    def copy(self) -> "_Pairs":
        """The same, without reading the texts again."""
        pairs = _Pairs()
        pairs._count = self._count
        pairs._codes = {pair: codes[:] for pair, codes in self._codes.items()}
        return pairs


def _as_bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Texts for a file: NumPy's own text arrays would give each the length of the longest."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)
