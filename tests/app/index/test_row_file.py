"""Rows of numbers in a memory-mapped file."""

from pathlib import Path

import numpy as np
import pytest

from app.index import row_file
from app.index.row_file import RowFile, row_checksums


def rows_of(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def open_rows(path: Path) -> RowFile[np.float16]:
    return RowFile(path, 2048, np.float16)


def embeddings(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float16)[:, None], 2048, axis=1)


def test_rows_are_read_as_last_written(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(0, 1, 2, 3), embeddings(1, 2, 3, 4))
    file.write(rows_of(1, 3, 20_000), embeddings(5, 6, 7))
    assert file.read(rows_of(0, 1, 2, 3, 4, 20_000))[:, 9].tolist() == [1, 5, 3, 6, 0, 7]
    assert file.read_unmapped(rows_of(0, 2, 3, 20_000))[:, 2047].tolist() == [1, 3, 6, 7]


def test_rows_are_the_same_when_they_are_prefetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "_SECONDS_FROM_MEMORY", 0)  # so that each read counts as slow
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(0, 1, 2, 17_000), embeddings(1, 2, 3, 4))
    for _ in range(2):
        assert file.read(rows_of(0, 2, 17_000))[:, 9].tolist() == [1, 3, 4]
    file.write(rows_of(40_000), embeddings(5))
    assert file.read(rows_of(1, 40_000))[:, 9].tolist() == [2, 5]
    file.close()
    assert file.read(rows_of(1, 40_000))[:, 9].tolist() == [2, 5], "searches that run during the close go on"


def test_zero_rows_can_be_written_and_read(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(), embeddings())
    assert len(file.read_unmapped(rows_of())) == 0


def test_a_reopened_file_has_its_rows(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(17_000), embeddings(3))
    file.sync()
    again = open_rows(tmp_path / "rows")
    again.prefetch()
    assert len(again) == len(file)
    assert again.read(rows_of(17_000))[0, 0] == 3


def test_hard_links_share_the_file_and_keep_it_after_the_close(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(0), embeddings(1))
    file.link(tmp_path / "other")
    file.write(rows_of(0), embeddings(2))
    file.close()
    assert not (tmp_path / "rows").exists()
    assert open_rows(tmp_path / "other").read(rows_of(0))[0, 0] == 2


def test_rows_stay_readable_when_the_file_grows_is_released_and_closed(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(5), embeddings(1))
    before = file.read(rows_of(5))
    file.write(rows_of(100_000), embeddings(2))
    file.release_pages()
    assert file.read(rows_of(5, 100_000))[:, 0].tolist() == [1, 2]
    file.close()
    assert before[0, 0] == 1


def test_reading_past_the_end_is_an_error(tmp_path: Path) -> None:
    file = open_rows(tmp_path / "rows")
    file.write(rows_of(0), embeddings(1))
    with pytest.raises(OSError, match="ends before row"):
        file.read_unmapped(rows_of(0, 16_383, 16_384))


def test_a_flipped_bit_changes_the_checksum_of_its_row_only(seed: int) -> None:

    rng = np.random.default_rng(seed)
    sound = rng.standard_normal((3, 2048)).astype(np.float16)
    checksums = row_checksums(sound)
    for bit in rng.choice(2048 * 16, 500, replace=False).tolist():
        damaged = sound.copy()
        damaged[1].view(np.uint16)[bit // 16] ^= np.uint16(1 << bit % 16)
        assert (row_checksums(damaged) != checksums).tolist() == [False, True, False]
