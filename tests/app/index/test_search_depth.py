"""The search depth for any number of wanted crops, from the measured ones."""

import pytest

from app.index.search_depth import Depth, SearchDepth, exhaustive_depth

MEASURED = SearchDepth((10, 100, 1000), (Depth(8, 100, 16), Depth(32, 400, 128), Depth(64, 3000, 1100)))


@pytest.mark.parametrize(("top_k", "expected"), list(zip(MEASURED.top_k, MEASURED.depths, strict=True)))
def test_measured_values_are_used_as_they_are(top_k: int, expected: Depth) -> None:
    assert MEASURED.at(top_k) == expected


def test_fewer_crops_than_measured_need_the_least_depth_and_more_a_proportional_one() -> None:
    assert MEASURED.at(1) == MEASURED.depths[0]
    assert MEASURED.at(2500) == Depth(160, 7500, 2750)


def test_values_between_are_interpolated_in_proportion() -> None:
    between = MEASURED.at(32)  # about half of the way from 10 to 100, in logarithms
    assert (between.nprobe, between.candidates) == (17, 202)


def test_a_filter_needs_more_lists_but_not_more_candidates_than_pass() -> None:
    plain, filtered = MEASURED.at(10), MEASURED.at(10, share=0.2)
    assert filtered.nprobe == MEASURED.at(100).nprobe
    assert filtered == Depth(32, max(plain.candidates, 80), max(plain.returned, 26))


def test_before_the_measurement_all_crops_are_compared() -> None:
    assert exhaustive_depth(500, 16).at(10) == Depth(16, 500, 500)
