"""CSV files as spreadsheets write them: commas, semicolons or tabs, byte order marks, blanks, empty rows."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from model.errors import DataError

_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class CsvRow:
    """The line in which a row ends, and its values by column, without blanks around them; missing ones are empty."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True)
class CsvTable:
    """The columns, in lower case and with `_` for blanks, and all rows that are not empty."""

    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv(path: Path) -> CsvTable:
    """Read a CSV file in UTF-8, or in UTF-16 with a byte order mark. Raises DataError with path and line."""
    lines = list(StringIO(_text(path), newline=""))
    first, delimiter = _layout(lines)
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[CsvRow] = []
    try:
        columns = _columns(path, next(reader, []))
        for raw in reader:
            values = [value.strip() for value in raw]
            if any(values):
                rows.append(_row(path, first + reader.line_num, columns, values))
    except csv.Error as error:
        raise DataError(f"{path}, line {first + reader.line_num}: {error}") from error
    return CsvTable(columns, tuple(rows))


def listed_file(folder: Path, name: str) -> Path:
    """The file that a row names, relative to a folder; Windows' `\\` separates folders where no such file exists."""
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not encoded in UTF-8; save the file as 'CSV UTF-8'") from error


def _layout(lines: list[str]) -> tuple[int, str]:
    """The number of lines before the header, and the delimiter; Excel's `sep=;` may name it."""
    if lines and (named := re.fullmatch(r"sep=(.)\s*", lines[0])):
        return 1, named[1]
    header = lines[0] if lines else ""
    return 0, max(_DELIMITERS, key=header.count)


def _columns(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    columns = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    while columns and not columns[-1]:
        columns.pop()
    for column, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{path}, line 1: {count} columns are called {column!r}; remove or rename all but one")
    return tuple(columns)


def _row(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> CsvRow:
    if any(values[len(columns) :]):
        raise DataError(
            f"{path}, line {line}: more values than there are columns; a value that contains the delimiter needs quotes"
        )
    return CsvRow(line, {column: values[i] if i < len(values) else "" for i, column in enumerate(columns)})
