"""Paints: the colour of a surface at each of its points."""

import numpy as np

from drawing.canvas import Mask, Paint, Plane, Region

Colour = tuple[float, float, float]
"""Red, green, blue from 0 to 1."""


def plain(colour: Colour) -> Paint:
    """One colour."""
    flat = np.array(colour, dtype=np.float32)
    return lambda u, v: np.broadcast_to(flat, (*u.shape, 3))


def over(below: Paint, above: Paint, region: Region) -> Paint:
    """`above` within the region, `below` elsewhere."""

    def paint(u: Plane, v: Plane) -> Plane:
        return np.where(region(u, v)[..., None], above(u, v), below(u, v))

    return paint


def striped(ground: Colour, stripe: Colour, period: float, share: float) -> Paint:
    """Stripes around the body; `period` in body heights, `share` of it in the stripe's colour."""
    return over(plain(ground), plain(stripe), lambda u, v: (v / period) % 1 < share)


def pinstriped(ground: Colour, stripe: Colour, count: int, share: float) -> Paint:
    """`count` upright stripes around the body; `share` of each period in the stripe's colour."""
    return over(plain(ground), plain(stripe), lambda u, v: (u * count / (2 * np.pi)) % 1 < share)


def checked(ground: Colour, line: Colour, period: float) -> Paint:
    """Crossing bands of `line`, stronger where they cross; `period` in body heights."""
    colours = np.array([ground, _between(ground, line, 0.6), line], dtype=np.float32)

    def paint(u: Plane, v: Plane) -> Plane:
        # A body is about 0.2 body heights wide, so u * 0.09 is a length on its surface.
        bands = ((v / period) % 1 < 0.45).astype(np.int8) + ((u * 0.09 / period) % 1 < 0.45)
        return colours[bands]

    return paint


def dotted(ground: Colour, dot: Colour, period: float) -> Paint:
    """Staggered dots; `period` in body heights."""

    def region(u: Plane, v: Plane) -> Mask:
        row = v / period
        column = u * 0.09 / period + 0.5 * (np.floor(row) % 2)
        dots: Mask = np.hypot(row % 1 - 0.5, column % 1 - 0.5) < 0.34
        return dots

    return over(plain(ground), plain(dot), region)


def flowered(ground: Colour, flower: Colour) -> Paint:
    """Irregular blots, like a printed pattern."""

    def region(u: Plane, v: Plane) -> Mask:
        wave = np.sin(v * 190 + 2.1 * np.sin(u * 7)) + np.sin(u * 15 + 2.3 * np.sin(v * 130))
        return wave > 0.75

    return over(plain(ground), plain(flower), region)


def two_tone(upper: Colour, lower: Colour, height: float) -> Paint:
    """`upper` above a height (body heights), `lower` below it."""
    return over(plain(upper), plain(lower), lambda u, v: v < height)


def faded(colour: Colour, pale: Colour) -> Paint:
    """Jeans: paler along the front of the leg and darker at its sides."""
    low, high = np.array(colour, dtype=np.float32), np.array(pale, dtype=np.float32)

    def paint(u: Plane, v: Plane) -> Plane:
        share = np.cos(u) ** 2 * np.clip(1 - ((v - 0.14) / 0.16) ** 2, 0, 1)
        colours: Plane = low + (high - low) * share[..., None]
        return colours

    return paint


def front(angle: float, low: float, high: float) -> Region:
    """Within `angle` radians of the front and between two heights."""
    return lambda u, v: (np.abs(u) < angle) & (v > low) & (v < high)


def back(angle: float, low: float, high: float) -> Region:
    """Within `angle` radians of the back and between two heights."""
    return lambda u, v: (np.abs(u) > np.pi - angle) & (v > low) & (v < high)


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """The colour moved towards black by `share` (0 to 1)."""
    return _between(colour, (0.0, 0.0, 0.0), share)


def paler(colour: Colour, share: float = 0.3) -> Colour:
    """The colour moved towards white by `share` (0 to 1)."""
    return _between(colour, (1.0, 1.0, 1.0), share)


def _between(start: Colour, end: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return red, green, blue
