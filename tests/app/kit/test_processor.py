"""Detection of processor features."""

from pathlib import Path

import pytest

from app.kit.processor import has_bfloat16


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16x\n", False),
        ("model name\t: avx512_bf16\nflags\t\t: fpu avx2\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_detected_by_cpu_flags(tmp_path: Path, cpuinfo: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert has_bfloat16(tmp_path / "cpuinfo") == has


def test_without_cpuinfo_there_is_no_bfloat16(tmp_path: Path) -> None:
    assert not has_bfloat16(tmp_path / "none")
