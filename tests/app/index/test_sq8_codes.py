"""SQ8 codes, which refine candidates."""

from pathlib import Path

import numpy as np
import pytest

from app.index.sq8_codes import Sq8Codes, step_for


@pytest.mark.parametrize("dims", [16, 20, 256])
def test_they_approximate_the_similarities_of_projections(tmp_path: Path, dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    projected = rng.standard_normal((500, dims)).astype(np.float32)
    query = rng.standard_normal(dims).astype(np.float32)
    step = step_for(projected)
    codes = Sq8Codes(tmp_path / "codes", dims, step)
    codes.write(np.arange(500), projected)
    rows = np.array([3, 499, 0, 77])
    approximate = codes.similarities(query, rows) * step
    assert approximate == pytest.approx(projected[rows] @ query, abs=0.1 * float(np.linalg.norm(query)))
    codes.file.close()


def test_numbers_out_of_range_are_clipped(tmp_path: Path) -> None:
    codes = Sq8Codes(tmp_path / "codes", 8, 0.01)
    codes.write(np.array([0, 1]), np.full((2, 8), [[1.0], [-7.0]], np.float32).reshape(2, 8))
    assert codes.similarities(np.ones(8, np.float32), np.array([0, 1])).tolist() == [8 * 100, -8 * 127]
    codes.file.close()


def test_the_checksum_of_a_row_changes_with_its_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = Sq8Codes(tmp_path / "codes", 20, 0.01)
    rows = np.arange(5)
    written = codes.write(rows, rng.standard_normal((5, 20)).astype(np.float32))
    assert (codes.checksums(rows) == written).all()
    codes.clear(rows[2:3])
    assert (codes.checksums(rows) == written).tolist() == [True, True, False, True, True]
    codes.file.close()


def test_projections_of_zero_have_codes(tmp_path: Path) -> None:
    nothing = np.zeros((3, 16), np.float32)
    codes = Sq8Codes(tmp_path / "codes", 16, step_for(nothing))
    codes.write(np.arange(3), nothing)
    assert codes.similarities(np.ones(16, np.float32), np.arange(3)).tolist() == [0, 0, 0]
    codes.file.close()
