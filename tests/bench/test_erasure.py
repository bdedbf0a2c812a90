"""The benchmark of rewrites after deletions, small."""

import asyncio

import pytest

from bench.erasure import measure


@pytest.mark.slow
def test_a_rewrite_is_measured_under_reads_and_writes(database_url: str) -> None:
    measured = asyncio.run(measure(database_url, 200, seed=0))
    assert 0 < measured.seconds < 600
    assert measured.longest_read > 0
    assert measured.longest_write > 0
    assert measured.gigabytes > 200 * 4096 / 1e9
