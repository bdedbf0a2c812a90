"""The contact sheet: its content, and robustness to odd pictures and names."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.search.sheet import MAX_MATCHES, MAX_QUERIES, Sheet, SheetMatch, can_draw, draw_sheet

RED = (200, 20, 20)
NIGHT = datetime(2026, 3, 16, 23, 59, 58, tzinfo=timezone(timedelta(hours=1), "CET"))


def picture(size: tuple[int, int] = (64, 128), colour: tuple[int, int, int] = RED, kind: str = "PNG") -> bytes:
    content = BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return content.getvalue()


def match(rank: int = 1, content: bytes | None = b"", camera: str = "lobby", similarity: float = 0.9) -> SheetMatch:
    return SheetMatch(picture() if content == b"" else content, rank, camera, NIGHT, similarity)


def drawn(
    matches: Sequence[SheetMatch] = (), queries: Sequence[bytes | None] = (), title: str = "Matches"
) -> NDArray[np.int16]:
    content = draw_sheet(Sheet(queries, matches, title, "search 1"))
    with Image.open(BytesIO(content)) as sheet:
        assert sheet.format == "JPEG"
        return np.asarray(sheet.convert("RGB"), dtype=np.int16)


def reddish(sheet: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where a sheet shows the red of the test pictures."""
    mask: NDArray[np.bool_] = np.abs(sheet - RED).max(axis=2) < 30
    return mask


def extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Width and height in pixels of what is set."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


@pytest.mark.parametrize("size", [(64, 128), (300, 100), (50, 400), (8, 8), (3000, 1500)])
def test_a_picture_keeps_its_shape(size: tuple[int, int]) -> None:
    width, height = extent(reddish(drawn([match(content=picture(size))])))
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_picture_is_shown_upright() -> None:
    content = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 64), RED).save(content, "JPEG", exif=exif)
    width, height = extent(reddish(drawn([match(content=content.getvalue())])))
    assert height == pytest.approx(2 * width, rel=0.05)


def encoded(source: Image.Image, **options: object) -> bytes:
    content = BytesIO()
    source.save(content, "PNG", **options)
    return content.getvalue()


def test_any_kind_of_pixels_is_shown() -> None:
    half = Image.new("RGBA", (64, 128), (*RED, 255))
    half.paste((0, 0, 0, 0), (0, 64, 64, 128))
    palette = Image.new("RGB", (64, 128), RED).quantize(4)
    whole = reddish(drawn([match()])).sum()
    assert reddish(drawn([match(content=encoded(palette, transparency=b"\xff"))])).sum() == pytest.approx(
        whole, rel=0.02
    )
    assert reddish(drawn([match(content=encoded(half))])).sum() == pytest.approx(whole / 2, rel=0.05)
    bright, dark = (
        drawn([match(content=encoded(Image.fromarray(np.full((128, 64), level, dtype=np.uint16))))])[250, 300, 0]
        for level in (50_000, 5_000)
    )
    assert (bright, dark) == (pytest.approx(195, abs=6), pytest.approx(19, abs=6))


def test_a_broken_exif_block_leaves_the_picture_shown() -> None:
    content = BytesIO()
    Image.new("RGB", (64, 128), RED).save(content, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00")
    assert reddish(drawn([match(content=content.getvalue())])).any()


def test_the_query_is_shown_larger_than_its_matches() -> None:
    red = reddish(drawn([match()], queries=[picture()]))
    query, found = red[:, :228], red[:, 228:]
    assert extent(query)[1] > 1.3 * extent(found)[1]


def test_several_queries_are_all_shown() -> None:
    one = reddish(drawn(queries=[picture(), picture(colour=(0, 0, 250))])).sum()
    assert reddish(drawn(queries=[picture()] * 4)).sum() == pytest.approx(4 * one, rel=0.02)


def test_matches_fill_rows_from_the_left() -> None:
    def columns(count: int) -> int:
        red = reddish(drawn([match(rank) for rank in range(1, count + 1)]))
        return int((np.diff(red.any(axis=0).astype(np.int8)) == 1).sum())

    assert [columns(count) for count in (1, 3, 7, 8)] == [1, 3, 7, 7]


@pytest.mark.parametrize("content", [None, b"no picture at all", picture()[:60]], ids=["gone", "text", "cut"])
def test_a_missing_or_damaged_picture_is_marked_and_affects_no_other(content: bytes | None) -> None:
    together = reddish(drawn([match(1, content), match(2)]))
    alone = reddish(drawn([match(1)]))
    assert extent(together) == pytest.approx(extent(alone), abs=2)
    assert np.nonzero(together.any(axis=0))[0][0] > np.nonzero(alone.any(axis=0))[0][0]


def test_without_matches_the_sheet_says_so() -> None:
    empty = drawn(queries=[picture()])
    with_match = drawn([match(content=picture(colour=(255, 255, 255)))], queries=[picture()])
    middle = (slice(200, 300), slice(600, 900))
    assert (empty[middle] < 150).any()
    assert not (with_match[middle] < 150).any()


def test_a_thousand_matches_give_a_sheet_of_bounded_size_that_says_so() -> None:
    full = drawn([match(rank, None) for rank in range(1, MAX_MATCHES + 1)])
    over = drawn([match(rank, None) for rank in range(1, 1001)])
    assert over.shape == full.shape
    assert over.shape[0] <= 5520
    note = (slice(20, 50), slice(over.shape[1] - 300, over.shape[1]))
    assert (over[note] < 180).any()
    assert not (full[note] < 180).any()


def test_more_queries_than_fit_are_counted_instead_of_drawn() -> None:
    many = drawn(queries=[picture()] * 50)
    assert many.shape[0] < 1000
    assert reddish(many).sum() == pytest.approx(reddish(drawn(queries=[picture()] * MAX_QUERIES)).sum(), rel=0.02)


def test_a_better_match_has_a_longer_bar() -> None:
    def bar(similarity: float) -> int:
        sheet = drawn([match(similarity=similarity)])
        return int((np.abs(sheet[119] - (38, 132, 176)).max(axis=1) < 40).sum())

    assert bar(-0.2) == 0 < bar(0.4) < bar(0.8) < bar(1.0) == bar(1.01)


@pytest.mark.parametrize(
    "name",
    ["Größe", "入口カメラ", "مدخل", "emoji 🚪", "two\nlines\tand tabs", "broken \ud800 surrogate", "", " ", "\x00"],
)
def test_any_camera_name_and_title_can_be_drawn(name: str) -> None:
    assert reddish(drawn([match(camera=name)], title=name)).any()


def test_a_long_camera_name_stays_below_its_own_picture() -> None:
    short = drawn([match(camera="lobby"), match(2, camera="lobby")])
    long = drawn([match(camera="the-camera-with-the-longest-name-of-all"), match(2, camera="lobby")])
    beside = slice(228 + 24 + 128, None)
    assert np.abs(long[:, beside] - short[:, beside]).max() < 40


def test_a_long_title_stays_on_the_sheet() -> None:
    sheet = drawn([match()], title="matches " * 100)
    assert (sheet[:80, -24:] > 200).all()


def test_names_that_the_font_cannot_draw_are_known() -> None:
    assert all(can_draw(name) for name in ("North gate", "Größe", "Café?", "gate-north"))
    assert not any(can_draw(name) for name in ("北門", "بوابة"))
