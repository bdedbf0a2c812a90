"""The contact sheet of a search: the query and its ranked matches, as one picture."""

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont, ImageOps

from model.decoding import upright

MAX_MATCHES = 100
"""Matches drawn at most; the header of a larger sheet says so."""

MAX_QUERIES = 8
"""Query pictures drawn at most."""

_COLUMNS = 7
_CARD = (128, 256)
_GAP = 16
_MARGIN = 24
_ABOVE_PICTURE = 30
_BELOW_PICTURE = 58
_PANEL = 228
_ONE_QUERY = (180, 360)
_SMALL_QUERY = (84, 168)
_HEADER = 96
_JPEG_QUALITY = 88

_BACKGROUND = (255, 255, 255)
_PICTURE_BACKGROUND = (236, 239, 243)
_PANEL_BACKGROUND = (31, 39, 51)
_PANEL_PICTURE_BACKGROUND = (52, 62, 78)
_PANEL_TEXT = (236, 240, 245)
_TEXT = (28, 34, 43)
_FAINT_TEXT = (108, 117, 130)
_BAR = (38, 132, 176)

# Pillow's default font has ASCII and few other characters.
_BEYOND_ASCII = "·°"
_REPLACEMENTS = str.maketrans({"ß": "ss", "\u2013": "-", "\u2014": "-"})

_Colour = tuple[int, int, int]


@dataclass(frozen=True)
class SheetMatch:
    """One match. picture: the crop's bytes, None if it is deleted. captured_at: in the time zone to show."""

    picture: bytes | None
    rank: int
    camera: str
    captured_at: datetime
    similarity: float


@dataclass(frozen=True)
class Sheet:
    """The content of a contact sheet; queries: pictures as in `SheetMatch`; matches: in the order of their ranks."""

    queries: Sequence[bytes | None]
    matches: Sequence[SheetMatch]
    title: str
    subtitle: str


def draw_sheet(sheet: Sheet) -> bytes:
    """The sheet as a JPEG, 1,268 pixels wide and at most 5,520 pixels high, depending on the matches."""
    matches = sheet.matches[:MAX_MATCHES]
    rows = -(-len(matches) // _COLUMNS)
    card_height = _ABOVE_PICTURE + _CARD[1] + _BELOW_PICTURE
    width = _PANEL + 2 * _MARGIN + _COLUMNS * _CARD[0] + (_COLUMNS - 1) * _GAP
    height = max(_HEADER + rows * (card_height + _GAP) + _MARGIN, _HEADER + _query_height(len(sheet.queries)) + _MARGIN)
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _draw_queries(picture, draw, sheet.queries)
    _draw_header(draw, sheet, width)
    for number, match in enumerate(matches):
        row, column = divmod(number, _COLUMNS)
        left = _PANEL + _MARGIN + column * (_CARD[0] + _GAP)
        _draw_match(picture, draw, match, (left, _HEADER + row * (card_height + _GAP)))
    if not matches:
        _draw_no_match(draw, width, height)
    content = BytesIO()
    picture.save(content, "JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()


def _draw_header(draw: ImageDraw.ImageDraw, sheet: Sheet, width: int) -> None:
    left, right = _PANEL + _MARGIN, width - _MARGIN
    for_title = right - left
    if len(sheet.matches) > MAX_MATCHES:
        note = f"first {MAX_MATCHES} of {len(sheet.matches):,} matches drawn"
        draw.text((right, 40), note, _FAINT_TEXT, _font(15), anchor="rs")
        for_title -= round(draw.textlength(note, _font(15))) + 24
    draw.text((left, 40), _fitting(draw, sheet.title, 24, for_title), _TEXT, _font(24), anchor="ls")
    draw.text((left, 66), _fitting(draw, sheet.subtitle, 14, right - left), _FAINT_TEXT, _font(14), anchor="ls")
    draw.line((left, 82, right, 82), _PICTURE_BACKGROUND, 2)


def _draw_match(picture: Image.Image, draw: ImageDraw.ImageDraw, match: SheetMatch, corner: tuple[int, int]) -> None:
    left, top = corner
    right = left + _CARD[0]
    draw.text((left, top + 16), f"{match.rank}", _TEXT, _font(18), anchor="ls")
    draw.text((right, top + 16), f"{match.similarity:.3f}", _TEXT, _font(15), anchor="rs")
    draw.rectangle((left, top + 22, right - 1, top + 25), _PICTURE_BACKGROUND)
    filled = round(_CARD[0] * min(max(match.similarity, 0.0), 1.0))
    if filled:
        draw.rectangle((left, top + 22, left + filled - 1, top + 25), _BAR)
    box = (left, top + _ABOVE_PICTURE, *_CARD)
    _mount(picture, draw, match.picture, box, _PICTURE_BACKGROUND, _FAINT_TEXT)
    below = box[1] + _CARD[1]
    when = match.captured_at
    zone = when.tzname() or ""
    draw.text((left, below + 18), _fitting(draw, match.camera, 14, _CARD[0]), _TEXT, _font(14), anchor="ls")
    draw.text((left, below + 35), f"{when:%Y-%m-%d}", _FAINT_TEXT, _font(12), anchor="ls")
    time = _fitting(draw, f"{when:%H:%M:%S} {zone}", 12, _CARD[0])
    draw.text((left, below + 51), time, _FAINT_TEXT, _font(12), anchor="ls")


def _draw_no_match(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    middle = ((_PANEL + width) // 2, (_HEADER + height - _MARGIN) // 2)
    draw.text(middle, "no match", _FAINT_TEXT, _font(30), anchor="mm")


def _query_height(count: int) -> int:
    if count <= 1:
        return _ONE_QUERY[1]
    rows = -(-min(count, MAX_QUERIES) // 2)
    more = 24 if count > MAX_QUERIES else 0
    return rows * (_SMALL_QUERY[1] + 12) - 12 + more


def _draw_queries(picture: Image.Image, draw: ImageDraw.ImageDraw, queries: Sequence[bytes | None]) -> None:
    """The left panel: one large query, or several small ones in two columns."""
    draw.rectangle((0, 0, _PANEL - 1, picture.height), _PANEL_BACKGROUND)
    heading = "Query" if len(queries) <= 1 else f"Query: {len(queries)} pictures"
    draw.text((_MARGIN, 40), heading, _PANEL_TEXT, _font(18), anchor="ls")
    size = _ONE_QUERY if len(queries) == 1 else _SMALL_QUERY
    for number, query in enumerate(queries[:MAX_QUERIES]):
        row, column = divmod(number, 2)
        corner = (_MARGIN + column * (size[0] + 12), _HEADER + row * (size[1] + 12))
        _mount(picture, draw, query, (*corner, *size), _PANEL_PICTURE_BACKGROUND, _PANEL_TEXT)
    if len(queries) > MAX_QUERIES:
        bottom = _HEADER + _query_height(len(queries)) - 4
        more = f"and {len(queries) - MAX_QUERIES} more"
        draw.text((_MARGIN, bottom), more, _PANEL_TEXT, _font(14), anchor="ls")


def _mount(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    content: bytes | None,
    box: tuple[int, int, int, int],
    ground: _Colour,
    ink: _Colour,
) -> None:
    """Fit a picture undistorted into a box (left, top, width, height), or write why there is none."""
    left, top, width, height = box
    draw.rectangle((left, top, left + width - 1, top + height - 1), ground)
    picture = None if content is None else _read(content, (width, height))
    if picture is not None:
        corner = (left + (width - picture.width) // 2, top + (height - picture.height) // 2)
        sheet.paste(picture, corner, mask=picture)
        return
    words = ("picture", "is gone") if content is None else ("picture", "unreadable")
    size = 14 if width > 100 else 12
    for line, word in enumerate(words):
        middle = (left + width // 2, top + height // 2 - 9 + 18 * line)
        draw.text(middle, word, ink, _font(size), anchor="mm")


def _read(content: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The picture as RGBA, upright and as large as fits into `size`; None if it cannot be read."""
    try:
        with Image.open(BytesIO(content)) as picture:
            # Decodes a large JPEG at a reduced size.
            picture.draft(picture.mode, (size[0] * 2, size[1] * 2))
            return ImageOps.contain(upright(picture).convert("RGBA"), size, Image.Resampling.LANCZOS)
    except Exception:  # on malformed data Pillow raises OSError, SyntaxError, struct.error and more
        return None


def _fitting(draw: ImageDraw.ImageDraw, text: str, size: int, width: float) -> str:
    """One line of text, cut with an ellipsis to at most `width` pixels."""
    line = _drawable(" ".join(text.split()))
    font = _font(size)
    if draw.textlength(line, font) <= width:
        return line
    fits = bisect_right(range(len(line)), width, key=lambda end: draw.textlength(line[:end] + "…", font))
    return line[: max(fits - 1, 0)].rstrip() + "…"


def can_draw(text: str) -> bool:
    """Whether the sheet's font has all letters of a text, accents aside."""
    return _drawable(text).count("?") == text.count("?")


def _drawable(text: str) -> str:
    """The text in characters of the font: without accents, other characters replaced by question marks."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_REPLACEMENTS))
    letters = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() or letter in _BEYOND_ASCII else "?" for letter in letters)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's default font, at a size in pixels."""
    return ImageFont.load_default(size)
