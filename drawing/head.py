"""Head, face, hair and hat."""

import math

import numpy as np

from drawing.canvas import Canvas, Limb, Mask, Material, Paint, Plane, Turned, View
from drawing.fabrics import Colour, darker, over, paler, plain
from drawing.wardrobe import Outfit, Person

_CHIN = 0.858
_HEAD = 0.146
# The height on the head (0 is the chin, 1 the crown) at which hair ends at the sides and at the back.
_HAIR_ENDS = {
    "short": (0.5, 0.2),
    "bob": (0.12, 0.08),
    "long": (0.04, 0.04),
    "ponytail": (0.46, 0.2),
    "bun": (0.46, 0.2),
}


def draw_head(canvas: Canvas, person: Person, view: View) -> None:
    """A whole head; `view` is turned like the head."""
    canvas.turned(_ball(0.5, 0.5, 0.052, 0.06, 0.006), view, Material(_face(person)))
    for side in (-1.0, 1.0):
        ear = Limb((side * 0.052, _height(0.5), -0.002), (side * 0.051, _height(0.43), 0.0), 0.011, 0.008)
        canvas.limb(ear, view, Material(plain(darker(person.skin, 0.1))))
    _draw_hair(canvas, person, view)
    _draw_hat(canvas, person.outfit, view)


def _height(share: float) -> float:
    """The height above the floor, in body heights, of a position on the head (0 is the chin, 1 the crown)."""
    return _CHIN + _HEAD * share


def _share(v: Plane) -> Plane:
    """The inverse of `_height`."""
    return (v - _CHIN) / _HEAD


def _ball(centre: float, up: float, wide: float, deep: float, forward: float, bottom: float = -1.0) -> Turned:
    """An ellipsoid from `bottom` (-1 is its lowest point) to its top; centre and half height as shares of the head."""
    return Turned(
        tuple(
            (_height(centre + up * math.sin(a)), wide * math.cos(a), deep * math.cos(a), 0.0, forward)
            for a in np.linspace(math.asin(bottom), math.pi / 2, 9).tolist()
        )
    )


def _face(person: Person) -> Paint:
    skin, hair = person.skin, person.hair_colour
    face = _feature(plain(skin), darker(skin, 0.4), (0.0, 0.24), (0.33, 0.025))
    face = _feature(face, darker(skin, 0.2), (0.0, 0.38), (0.16, 0.05))
    if person.beard:
        face = over(face, plain(hair), lambda u, v: (_share(v) < 0.3 - 0.1 * np.cos(2 * u)) & (np.abs(u) < 1.7))
    face = _feature(face, (0.95, 0.95, 0.94), (0.45, 0.52), (0.2, 0.035))
    face = _feature(face, darker(skin, 0.75), (0.45, 0.52), (0.1, 0.035))
    face = _feature(face, darker(skin, 0.5), (0.46, 0.6), (0.24, 0.02))
    if person.glasses:
        frame = plain((0.09, 0.09, 0.1))
        face = over(face, frame, lambda u, v: (np.abs(u) < 1.3) & (np.abs(_share(v) - 0.57) < 0.022))
        face = over(face, frame, lambda u, v: (np.abs(np.abs(u) - 0.46) < 0.3) & (np.abs(_share(v) - 0.46) < 0.018))
    return face


def _feature(below: Paint, colour: Colour, place: tuple[float, float], size: tuple[float, float]) -> Paint:
    """A feature at both sides of a face. place: angle from the middle, and height on the head; size: half extents."""
    return over(
        below,
        plain(colour),
        lambda u, v: (np.abs(np.abs(u) - place[0]) < size[0]) & (np.abs(_share(v) - place[1]) < size[1]),
    )


def _draw_hair(canvas: Canvas, person: Person, view: View) -> None:
    colour = person.hair_colour
    if person.hair == "bald":
        rim = Material(plain(colour), keep=lambda u, v: (np.abs(u) > 1.3) & (np.abs(_share(v) - 0.4) < 0.24))
        canvas.turned(_ball(0.5, 0.51, 0.055, 0.062, 0.004), view, rim)
        return
    strands = over(plain(colour), plain(paler(colour, 0.1)), lambda u, v: np.sin(u * 17 + 3 * np.sin(u * 5)) > 0.4)
    side, back = _HAIR_ENDS[person.hair]

    def scalp(u: Plane, v: Plane) -> Mask:
        angle = np.abs(u)
        end = np.where(angle < 0.8, 0.79 - 0.04 * angle, np.where(angle < 1.9, side, back))
        grown: Mask = _share(v) > end
        return grown

    full = 1.1 if person.hair in ("bob", "long") else 1.04
    crown = _ball(0.53, 0.53, 0.054 * full, 0.064 * full, -0.002)
    canvas.turned(crown, view, Material(strands, crease=0.1, keep=scalp))
    hair = Material(strands, crease=0.12)
    match person.hair:
        case "long":
            mane = (
                (0.74, 0.048, 0.016, 0.0, -0.07),
                (0.80, 0.062, 0.026, 0.0, -0.06),
                (0.87, 0.06, 0.04, 0.0, -0.03),
                (0.94, 0.055, 0.045, 0.0, -0.016),
            )
            canvas.turned(Turned(mane), view, hair)
        case "bob":
            sides = ((0.855, 0.058, 0.052, 0.0, -0.014), (0.935, 0.062, 0.062, 0.0, -0.006))
            canvas.turned(Turned(sides), view, Material(strands, crease=0.12, keep=lambda u, v: np.abs(u) > 1.05))
        case "ponytail":
            canvas.limb(Limb((0.0, 0.955, -0.07), (0.0, 0.83, -0.09), 0.021, 0.011), view, hair)
        case "bun":
            canvas.turned(_ball(0.88, 0.2, 0.03, 0.03, -0.056), view, hair)


def _draw_hat(canvas: Canvas, outfit: Outfit, view: View) -> None:
    colour = outfit.hat_colour
    match outfit.hat:
        case "beanie":
            knit = over(plain(colour), plain(darker(colour, 0.25)), lambda u, v: _share(v) < 0.76)
            canvas.turned(_ball(0.62, 0.48, 0.06, 0.069, 0.0, bottom=0.05), view, Material(knit, crease=0.1))
        case "cap":
            canvas.turned(_ball(0.66, 0.4, 0.059, 0.069, 0.0, bottom=0.05), view, Material(plain(colour)))
            visor = ((_height(0.67), 0.046, 0.052, 0.0, 0.066), (_height(0.73), 0.046, 0.05, 0.0, 0.062))
            brim = Material(plain(darker(colour, 0.2)), keep=lambda u, v: np.abs(u) < 1.7)
            canvas.turned(Turned(visor), view, brim)
        case "sunhat":
            canvas.turned(_ball(0.66, 0.4, 0.059, 0.069, 0.0, bottom=0.05), view, Material(plain(colour)))
            wide = ((_height(0.66), 0.118, 0.122, 0.0, 0.0), (_height(0.74), 0.1, 0.105, 0.0, 0.0))
            canvas.turned(Turned(wide), view, Material(plain(darker(colour, 0.1))))
