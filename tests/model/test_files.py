"""Atomic writes of files."""

from contextlib import suppress
from pathlib import Path

import pytest

from model.files import atomic_write, write_atomically


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one")
    write_atomically(tmp_path / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"two")]


def test_readers_see_nothing_of_an_unfinished_write(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one")
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_bytes(b"two")
        assert (tmp_path / "file").read_bytes() == b"one"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"two")]


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one")
    with suppress(KeyboardInterrupt), atomic_write(tmp_path / "file") as temporary:
        temporary.write_bytes(b"tw")
        raise KeyboardInterrupt
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"one")]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
