"""The scenes of the cameras: four kinds of places, each drawn in perspective as a wide frame without people."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from drawing.canvas import Plane
from drawing.fabrics import Colour, darker, paler

FRAME_SIZE = (960, 540)
"""Width and height of a frame in pixels."""

_FOCAL = 825.0
_CAMERA_HEIGHT = 2.9
_HORIZON = 68.0


@dataclass(frozen=True)
class Palette:
    """The colours of a place, all 0 to 1."""

    wall: Colour
    floor: Colour
    accent: Colour
    dark: Colour


class Stage:
    """A flat floor in perspective. Positions are metres: `x` to the right of the camera, `z` away from it, `y` up."""

    def __init__(self, floor: Colour, wall: Colour, rng: np.random.Generator) -> None:
        self.rng = rng
        self._picture = Image.new("RGB", FRAME_SIZE, _rgb(wall))
        self._draw = ImageDraw.Draw(self._picture)
        self.quad(((-60, 0, 60), (60, 0, 60), (60, 0, 2), (-60, 0, 2)), floor)

    def quad(self, corners: tuple[tuple[float, float, float], ...], colour: Colour) -> None:
        """Fill a polygon given by `(x, y, z)` corners."""
        self._draw.polygon([pixel_of(*corner) for corner in corners], fill=_rgb(colour))

    def upright(self, x: float, z: float, width: float, low: float, high: float, colour: Colour) -> None:
        """Fill an upright rectangle that faces the camera."""
        left, right = x - width / 2, x + width / 2
        self.quad(((left, low, z), (right, low, z), (right, high, z), (left, high, z)), colour)

    def box(self, x: float, z: float, size: tuple[float, float, float], colour: Colour, low: float = 0.0) -> None:
        """Draw a box with its front at `z`; `size` is width, height and depth, `low` the height of its bottom."""
        width, height, depth = size
        left, right, far, high = x - width / 2, x + width / 2, z + depth, low + height
        self.quad(((left, high, z), (right, high, z), (right, high, far), (left, high, far)), paler(colour, 0.15))
        side = right if x < 0 else left
        self.quad(((side, low, z), (side, high, z), (side, high, far), (side, low, far)), darker(colour, 0.3))
        self.upright(x, z, width, low, high, colour)

    def line(
        self, start: tuple[float, float, float], end: tuple[float, float, float], colour: Colour, width: float
    ) -> None:
        """Draw a line between two `(x, y, z)`; `width` in metres."""
        nearest = min(start[2], end[2])
        pixels = max(1, round(width * _FOCAL / nearest))
        self._draw.line([pixel_of(*start), pixel_of(*end)], fill=_rgb(colour), width=pixels)

    def wheel(self, x: float, y: float, z: float, radius: float, colour: Colour, width: float = 0.05) -> None:
        """Draw a circle that faces the camera; `width` is its rim's, in metres."""
        column, row = pixel_of(x, y, z)
        size = radius * _FOCAL / z
        box = (column - size, row - size, column + size, row + size)
        self._draw.ellipse(box, outline=_rgb(colour), width=max(1, round(width * _FOCAL / z)))

    def bush(self, x: float, y: float, z: float, radius: float, colour: Colour) -> None:
        """Draw leaves as small ellipses."""
        for _ in range(60):
            across, up = self.rng.normal(0, radius * 0.45, 2)
            column, row = pixel_of(x + across, max(y + up, 0.05), z)
            size = radius * 0.22 * _FOCAL / z
            shade = float(self.rng.uniform(-0.35, 0.25))
            leaf = darker(colour, -shade) if shade < 0 else paler(colour, shade)
            self._draw.ellipse((column - size, row - size * 0.7, column + size, row + size * 0.7), fill=_rgb(leaf))

    def grid(self, step: float, colour: Colour, width: float, far: float) -> None:
        """Draw the joints of a tiled floor."""
        for x in np.arange(-14, 14 + step, step):
            self.line((float(x), 0, far), (float(x), 0, 2.4), colour, width * 0.3)
        for z in np.arange(2.4, far, step):
            self.line((-14, 0, float(z)), (14, 0, float(z)), colour, width)

    def finish(self) -> Plane:
        """The frame as `(540, 960, 3)` float32, with grain, stains and uneven light."""
        frame = np.asarray(self._picture.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float32) / 255
        stains = self.rng.standard_normal((24, 40), dtype=np.float32)
        cloudy = np.asarray(Image.fromarray(stains).resize(FRAME_SIZE, Image.Resampling.BICUBIC))
        grain = self.rng.standard_normal(frame.shape[:2], dtype=np.float32)
        return np.clip(frame * (1 + 0.045 * cloudy + 0.02 * grain)[..., None], 0, 1)


Scene = Callable[[Palette, np.random.Generator], Plane]
"""Draws a camera's frame without people, `(540, 960, 3)` float32 from 0 to 1."""


def pixel_of(x: float, y: float, z: float) -> tuple[float, float]:
    """Column and row in the frame of a point in metres."""
    return FRAME_SIZE[0] / 2 + _FOCAL * x / z, _HORIZON + _FOCAL * (_CAMERA_HEIGHT - y) / z


def pixels_per_metre(z: float) -> float:
    """The size of a metre in the frame at a distance of `z` metres, in pixels."""
    return _FOCAL / z


def pitch_at(z: float) -> float:
    """The angle at which the camera looks down on a person at `z` metres, in radians."""
    return float(np.arctan2(_CAMERA_HEIGHT - 0.9, z))


def plaza(palette: Palette, rng: np.random.Generator) -> Plane:
    """Paving in front of a wall with a gate, railings, parked bicycles and shrubs."""
    stage = Stage(palette.floor, palette.wall, rng)
    stage.upright(0, 26, 60, 0, 5, palette.wall)
    for row in np.arange(0.3, 5, 0.45):
        stage.line((-30, float(row), 26), (30, float(row), 26), darker(palette.wall, 0.12), 0.05)
    for x in (-9.0, 1.5, 10.0):
        stage.upright(x, 25.5, 3.0, 0, 4.2, palette.dark)
        stage.upright(x, 25.4, 0.12, 0, 4.2, paler(palette.dark, 0.3))
    stage.grid(0.9, darker(palette.floor, 0.16), 0.025, far=21.0)
    for x in np.arange(-12, 12, 1.6):
        stage.bush(float(x + rng.uniform(-0.5, 0.5)), 0.6, 21, 0.9, palette.accent)
    stage.quad(((-30, 0, 19.8), (30, 0, 19.8), (30, 0, 19), (-30, 0, 19)), paler(palette.floor, 0.2))
    for x in np.arange(-8.5, 9, 0.95):
        _bicycle(stage, float(x + rng.uniform(-0.2, 0.2)), 15.5, rng)
    for x in np.arange(-10, 10.5, 2.5):
        stage.line((float(x), 0, 14.8), (float(x), 1.0, 14.8), palette.dark, 0.07)
    for height in (0.55, 0.98):
        stage.line((-10, height, 14.8), (10, height, 14.8), palette.dark, 0.06)
    return stage.finish()


def _bicycle(stage: Stage, x: float, z: float, rng: np.random.Generator) -> None:
    colour = [(0.12, 0.12, 0.13), (0.5, 0.12, 0.12), (0.15, 0.25, 0.45), (0.6, 0.6, 0.6)][int(rng.integers(4))]
    for offset in (-0.5, 0.5):
        stage.wheel(x + offset, 0.34, z, 0.33, (0.08, 0.08, 0.08))
    for start, end in (
        ((-0.5, 0.34), (-0.1, 0.8)),
        ((-0.1, 0.8), (0.4, 0.85)),
        ((0.4, 0.95), (0.5, 0.34)),
        ((0, 0.34), (0.4, 0.8)),
    ):
        stage.line((x + start[0], start[1], z), (x + end[0], end[1], z), colour, 0.05)


def lobby(palette: Palette, rng: np.random.Generator) -> Plane:
    """Polished tiles, a glass front, a desk, a column and plants."""
    stage = Stage(palette.floor, palette.wall, rng)
    stage.upright(0, 20, 50, 0, 5, palette.wall)
    for x in np.arange(-12, 12, 2.4):
        stage.upright(float(x), 19.5, 2.1, 0.1, 3.6, paler(palette.wall, 0.45))
        stage.upright(float(x) + 0.4, 19.4, 0.5, 0.1, 3.6, paler(palette.wall, 0.65))
    for x in np.arange(-12, 12, 2.4):
        stage.quad(
            ((x - 0.9, 0, 19), (x + 0.9, 0, 19), (x + 0.5, 0, 11), (x - 0.5, 0, 11)),
            paler(palette.floor, 0.18),
        )
    stage.grid(1.2, darker(palette.floor, 0.1), 0.02, far=19.0)
    stage.quad(((-4, 0, 17), (3, 0, 17), (3, 0, 14.5), (-4, 0, 14.5)), palette.accent)
    stage.box(6.6, 11, (4.2, 1.1, 0.9), palette.dark)
    stage.box(6.6, 10.95, (4.3, 0.08, 1.0), paler(palette.dark, 0.4), 1.1)
    for x in (-7.0, 2.6):
        stage.box(x, 15, (0.8, 5, 0.8), paler(palette.wall, 0.2))
    for x, z in ((-5.2, 12.5), (3.7, 13.5), (-8.5, 10.5)):
        stage.box(x, z, (0.5, 0.5, 0.5), darker(palette.accent, 0.4))
        stage.bush(x, 1.1, z, 0.75, (0.22, 0.42, 0.2))
    return stage.finish()


def garage(palette: Palette, rng: np.random.Generator) -> Plane:
    """Concrete, pillars with a coloured band, parked cars and painted bays."""
    stage = Stage(palette.floor, palette.wall, rng)
    stage.upright(0, 24, 60, 0, 3.2, darker(palette.wall, 0.15))
    stage.upright(0, 23.9, 60, 1.0, 1.25, palette.accent)
    for x in np.arange(-14, 15, 2.8):
        stage.line((float(x), 0, 19.5), (float(x), 0, 14.2), paler(palette.floor, 0.55), 0.1)
    paints: tuple[Colour, ...] = (
        (0.75, 0.76, 0.78),
        (0.16, 0.17, 0.19),
        (0.45, 0.1, 0.1),
        (0.2, 0.28, 0.42),
        (0.5, 0.5, 0.5),
    )
    for x in np.arange(-12.6, 13, 2.8):
        if rng.random() < 0.8:
            _car(stage, float(x), 15.5, paints[int(rng.integers(len(paints)))])
    for x in (-7.0, -0.2, 6.4):
        stage.box(x, 12.8, (0.55, 3.4, 0.55), palette.wall)
        stage.box(x, 12.75, (0.57, 0.5, 0.6), palette.accent, 0.9)
    stage.line((-3, 0, 12), (-1.2, 0, 4), paler(palette.floor, 0.45), 0.08)
    stage.line((3, 0, 12), (3.4, 0, 4), paler(palette.floor, 0.45), 0.08)
    return stage.finish()


def _car(stage: Stage, x: float, z: float, paint: Colour) -> None:
    stage.quad(
        ((x - 1, 0, z + 2), (x + 1, 0, z + 2), (x + 1.05, 0, z - 0.2), (x - 1.05, 0, z - 0.2)),
        (0.06, 0.06, 0.07),
    )
    stage.box(x, z, (1.8, 0.7, 3.5), paint, 0.25)
    stage.box(x, z + 0.9, (1.5, 0.55, 2.0), (0.12, 0.15, 0.18), 0.95)
    for side in (-0.65, 0.65):
        stage.upright(x + side, z - 0.02, 0.35, 0.6, 0.75, (0.93, 0.92, 0.85))
        stage.upright(x + side, z - 0.02, 0.25, 0.02, 0.4, (0.05, 0.05, 0.05))
    stage.upright(x, z - 0.02, 0.5, 0.42, 0.54, (0.9, 0.9, 0.9))


def platform(palette: Palette, rng: np.random.Generator) -> Plane:
    """A platform with a tactile strip, a train behind it, columns, benches and a sign."""
    stage = Stage(palette.floor, palette.wall, rng)
    stage.upright(0, 18, 60, -0.2, 3.6, palette.accent)
    stage.upright(0, 17.9, 60, 1.6, 2.6, (0.14, 0.17, 0.2))
    for x in np.arange(-15, 15, 3.0):
        stage.upright(float(x), 17.8, 1.3, 0.1, 2.9, paler(palette.accent, 0.35))
        stage.upright(float(x), 17.7, 0.9, 1.4, 2.6, (0.2, 0.24, 0.28))
    stage.upright(0, 17.6, 60, 0.9, 1.05, palette.dark)
    stage.grid(0.6, darker(palette.floor, 0.12), 0.015, far=17.3)
    stage.quad(((-30, 0, 17.4), (30, 0, 17.4), (30, 0, 16.9), (-30, 0, 16.9)), paler(palette.floor, 0.5))
    stage.quad(((-30, 0, 16.3), (30, 0, 16.3), (30, 0, 15.6), (-30, 0, 15.6)), (0.80, 0.68, 0.22))
    for x in (-8.0, -1.0, 6.2):
        stage.box(x, 13.5, (0.4, 4.0, 0.4), paler(palette.dark, 0.2))
    for x in (-4.5, 3.0):
        stage.box(x, 13.8, (1.8, 0.08, 0.5), palette.dark, 0.45)
        stage.box(x, 14.2, (1.8, 0.45, 0.08), palette.dark, 0.55)
    stage.upright(1.2, 13.0, 2.2, 2.6, 3.1, (0.1, 0.2, 0.45))
    return stage.finish()


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(round(c * 255), 0, 255)) for c in colour)
    return red, green, blue
