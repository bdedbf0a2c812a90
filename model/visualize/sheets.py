"""Ranked queries for an HTML page: pictures, activation maps and bars of part similarities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.architecture import PARTS
from model.checkpoint import Checkpoint
from model.visualize.ranks import RankedCrop, RankedQuery
from model.visualize.thumbnails import jpeg_uri, overlaid, read_thumbnail

PICTURE_SIZE = (128, 256)
"""The maximum width and height of pictures in pixels."""


@dataclass(frozen=True)
class Bar:
    """A part's similarity, and the start and length of its bar in % of the axis."""

    part: str
    cosine: float
    start: float
    length: float


@dataclass(frozen=True)
class Card:
    """A ranked crop with its pictures as `data:` URIs: the plain one, then one with each branch's activation map."""

    crop: RankedCrop
    pictures: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class QuerySheet:
    """One query and its cards."""

    ranked: RankedQuery
    pictures: tuple[str, ...]
    cards: tuple[Card, ...]
    beyond: Card | None


def build_sheets(queries: Sequence[RankedQuery], checkpoint: Checkpoint | None) -> list[QuerySheet]:
    """Sheets with the pictures of all crops; with a torch checkpoint also the activation maps of its branches.

    Raises DataError for a file that is not a picture.
    """
    pictures = _pictures([path for ranked in queries for path in _paths(ranked)], checkpoint)
    floor = min([0.0, *(cosine for ranked in queries for crop in _all_crops(ranked) for cosine in crop.parts)])

    def card(crop: RankedCrop) -> Card:
        bars = (_bar(part, cosine, floor) for part, cosine in zip(PARTS, crop.parts, strict=True))
        return Card(crop, pictures[crop.sample.path], tuple(bars))

    return [
        QuerySheet(
            ranked,
            pictures[ranked.sample.path],
            tuple(card(crop) for crop in ranked.crops),
            card(ranked.beyond) if ranked.beyond else None,
        )
        for ranked in queries
    ]


def _bar(part: str, cosine: float, floor: float) -> Bar:
    """The bar on an axis from `floor` (0 or negative) to 1."""
    span = 1 - floor
    start = min(max((min(cosine, 0.0) - floor) / span, 0), 1)
    length = min(abs(cosine) / span, 1 - start)
    return Bar(part, cosine, round(100 * start, 2), round(100 * length, 2))


def _all_crops(ranked: RankedQuery) -> tuple[RankedCrop, ...]:
    return (*ranked.crops, ranked.beyond) if ranked.beyond else ranked.crops


def _paths(ranked: RankedQuery) -> list[Path]:
    return [ranked.sample.path, *(crop.sample.path for crop in _all_crops(ranked))]


def _pictures(paths: Sequence[Path], checkpoint: Checkpoint | None) -> dict[Path, tuple[str, ...]]:
    unique_paths = list(dict.fromkeys(paths))
    thumbnails = {path: read_thumbnail(path, PICTURE_SIZE) for path in unique_paths}
    if checkpoint is None:
        return {path: (jpeg_uri(picture),) for path, picture in thumbnails.items()}
    from model.visualize.activations import activation_maps

    maps = activation_maps(checkpoint, unique_paths)
    return {
        path: (jpeg_uri(picture), *(jpeg_uri(overlaid(picture, activation)) for activation in maps[path]))
        for path, picture in thumbnails.items()
    }
