"""The paints of upper and lower garments and of sleeves."""

import numpy as np

from drawing.canvas import Mask, Paint, Plane, Region
from drawing.fabrics import (
    Colour,
    back,
    checked,
    darker,
    dotted,
    faded,
    flowered,
    front,
    over,
    paler,
    pinstriped,
    plain,
    striped,
    two_tone,
)
from drawing.wardrobe import Outfit, Pattern, Person

_NECK = 0.838
_NECKLINES = {"tank": 0.05, "dress": 0.045, "t-shirt": 0.022, "sweater": 0.012}


def upper_paint(person: Person) -> Paint:
    """The torso: fabric, fastening, neckline, and the straps of the bag."""
    outfit = person.outfit
    paint = _patterned(outfit.pattern, outfit.upper, outfit.second)
    seam = plain(darker(outfit.upper, 0.45))
    match outfit.cut:
        case "open":
            paint = over(paint, plain(outfit.second), front(0.5, 0.0, 0.86))
            paint = over(paint, seam, lambda u, v: np.abs(np.abs(u) - 0.5) < 0.06)
        case "jacket" | "coat":
            paint = over(paint, seam, front(0.07, 0.0, 0.86))
            paint = over(paint, seam, lambda u, v: (np.abs(np.abs(u) - 0.75) < 0.22) & (np.abs(v - 0.6) < 0.006))
        case "shirt":
            paint = over(paint, seam, front(0.04, 0.5, 0.86))
        case "polo":
            paint = over(paint, seam, front(0.05, 0.75, 0.86))
        case "hoodie":
            paint = over(paint, seam, lambda u, v: (np.abs(u) < 0.7) & (np.abs(v - 0.615) < 0.005))
            paint = over(paint, seam, lambda u, v: v < 0.52)
        case "tank":
            # Bare shoulders.
            paint = over(paint, plain(person.skin), lambda u, v: (v > 0.79) & (np.abs(np.abs(u) - np.pi / 2) < 0.75))
    if outfit.cut in _NECKLINES:
        paint = over(paint, plain(person.skin), _neckline(_NECKLINES[outfit.cut]))
    return _with_straps(paint, outfit)


def lower_paint(outfit: Outfit) -> Paint:
    """Trousers, shorts and skirts."""
    colour = outfit.lower
    if outfit.lower_kind == "jeans":
        return faded(colour, paler(colour, 0.28))
    accent = darker(colour, 0.65) if sum(colour) > 1.3 else paler(colour, 0.6)
    return _patterned(outfit.lower_pattern, colour, accent)


def sleeve_paint(outfit: Outfit) -> Paint:
    """Sleeves have the torso's pattern, except patterns of the chest only."""
    if outfit.pattern in ("logo", "two-tone"):
        return plain(outfit.upper)
    return _patterned(outfit.pattern, outfit.upper, outfit.second)


def _patterned(pattern: Pattern, colour: Colour, second: Colour) -> Paint:
    match pattern:
        case "plain":
            return plain(colour)
        case "striped":
            return striped(colour, second, 0.042, 0.42)
        case "pinstriped":
            return pinstriped(colour, second, 30, 0.3)
        case "checked":
            return checked(colour, second, 0.036)
        case "dotted":
            return dotted(colour, second, 0.034)
        case "flowered":
            return flowered(colour, second)
        case "two-tone":
            return two_tone(colour, second, 0.70)
        case "logo":
            chest = over(plain(colour), plain(second), front(0.55, 0.68, 0.755))
            return over(chest, plain(second), back(0.5, 0.71, 0.75))


def _neckline(depth: float) -> Region:
    """Bare skin above a line that is `depth` lower in front than at the neck."""

    def region(u: Plane, v: Plane) -> Mask:
        bare: Mask = v > _NECK - depth * np.clip(1 - (u / 0.8) ** 2, 0, 1)
        return bare

    return region


def _with_straps(paint: Paint, outfit: Outfit) -> Paint:
    strap = plain(darker(outfit.bag_colour, 0.2))
    if outfit.bag == "backpack":
        return over(paint, strap, lambda u, v: (np.abs(np.abs(u) - 0.75) < 0.17) & (v > 0.63))
    if outfit.bag == "messenger":
        # From the right shoulder down to the left hip, in front and behind.
        return over(paint, strap, lambda u, v: np.abs(v - 0.70 + 0.12 * np.sin(u)) < 0.013)
    return paint
