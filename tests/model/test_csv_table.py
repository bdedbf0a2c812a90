"""CSV files as spreadsheets and editors write them: read as they are meant, or one clear error."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.csv_table import listed_file, read_csv
from model.errors import DataError

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "list.csv"


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5), st.sampled_from(",;\t"))
def test_what_a_csv_writer_writes_is_read_back_without_blanks(
    path: Path, rows: list[list[str]], delimiter: str
) -> None:
    file = StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([["file", "pid"], *rows])
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    read = [(row.values["file"], row.values["pid"]) for row in read_csv(path).rows]
    written = [(one.strip(), other.strip()) for one, other in rows]
    assert read == [row for row in written if any(row)]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_the_path(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read_csv(path)
    except DataError as refused:
        message = str(refused)
        assert str(path) in message


def test_lines_are_counted_as_an_editor_does(path: Path) -> None:
    path.write_text('sep=,\nfile,pid\n"a\nb",1\n,,\nc,2,3\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 6: more values than there are columns"):
        read_csv(path)


def test_names_with_backslashes_are_files_of_that_name_first(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for name in ("day/a.jpg", "day\\b.jpg"):
        (tmp_path / name).touch()
    assert listed_file(tmp_path, "day\\a.jpg") == tmp_path / "day" / "a.jpg"
    assert listed_file(tmp_path, "day\\b.jpg") == tmp_path / "day\\b.jpg"
