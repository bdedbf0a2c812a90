"""A small renderer of round bodies with painted surfaces, with shading and a depth buffer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.intp]

Paint = Callable[[Plane, Plane], Plane]
"""The colours `(..., 3)`, 0 to 1, of surface points `u`, `v`, both `(...)`.

`u` is the angle around the body in radians: 0 is its front, positive its left, pi its back. `v` is the height above the
floor for turned bodies, and the distance from the upper end for limbs, in body heights.
"""

Region = Callable[[Plane, Plane], Mask]
"""Which surface points `u`, `v` belong to a part."""

Point = tuple[float, float, float]
"""To the figure's left, up, and forward, in body heights; the origin lies on the floor between the feet."""


@dataclass(frozen=True)
class View:
    """How a figure stands in front of the camera.

    x, y: pixels of the figure's origin. scale: pixels per body height. yaw: radians, 0 faces the camera and positive
    turns to the picture's right. pitch: radians that the camera looks down. depth: offset towards the camera, in body
    heights. light: its direction (right, up, towards the camera), length 1.
    """

    x: float
    y: float
    scale: float
    yaw: float
    pitch: float
    light: Point
    depth: float = 0.0

    @cached_property
    def turned(self) -> tuple[float, float]:
        """Sine and cosine of the yaw."""
        return math.sin(self.yaw), math.cos(self.yaw)

    @cached_property
    def tilted(self) -> tuple[float, float]:
        """Sine and cosine of the pitch."""
        return math.sin(self.pitch), math.cos(self.pitch)

    def project(self, point: Point) -> Point:
        """Pixel column, pixel row and depth (body heights, larger is nearer)."""
        left, up, forward = point
        (sin_yaw, cos_yaw), (sin_pitch, cos_pitch) = self.turned, self.tilted
        across = left * cos_yaw + forward * sin_yaw
        towards = forward * cos_yaw - left * sin_yaw
        return (
            self.x + self.scale * across,
            self.y - self.scale * (up * cos_pitch - towards * sin_pitch),
            self.depth + towards * cos_pitch + up * sin_pitch,
        )


@dataclass(frozen=True)
class Turned:
    """An upright body with elliptic sections, lowest first: `(height, half width, half depth, left, forward)` each.

    All in body heights; `left` and `forward` move a section's centre. `square` bulges the sections to a box.
    """

    sections: tuple[tuple[float, float, float, float, float], ...]
    square: bool = False


@dataclass(frozen=True)
class Limb:
    """A round limb between two points with a radius at each; `cut` ends it flat instead of round at the second."""

    start: Point
    end: Point
    start_radius: float
    end_radius: float
    cut: bool = False


@dataclass(frozen=True)
class Material:
    """A body's surface. crease: depth of the cloth's folds, 0 to 1. keep: the region to draw; None: all of it."""

    paint: Paint
    crease: float = 0.0
    keep: Region | None = None


@dataclass(frozen=True)
class _Surface:
    """The points of a body that the camera sees, each field `(n,)`: pixel, depth, normal, and position on the body."""

    rows: Pixels
    columns: Pixels
    depth: Plane
    normal: tuple[Plane, Plane, Plane]
    u: Plane
    v: Plane


class Canvas:
    """A picture with a depth buffer; `colour` is `(h, w, 3)` float32 from 0 to 1."""

    def __init__(self, background: NDArray[np.float32]) -> None:
        self.colour = background.copy()
        self._depth: NDArray[np.float32] = np.full_like(background[..., 0], -np.inf)

    def turned(self, body: Turned, view: View, material: Material) -> None:
        """Draw a turned body."""
        heights, widths, depths = np.array(body.sections, dtype=np.float32).T[:3]
        columns, rows, nearness = np.array(
            [view.project((s[3], s[0], s[4])) for s in body.sections], dtype=np.float32
        ).T
        (sin, cos), (sin_pitch, cos_pitch) = view.turned, view.tilted
        reach = float(np.hypot(widths, depths).max()) * view.scale
        bulge = float(depths.max()) * sin_pitch * view.scale
        y, x = self._pixels(columns.min() - reach, rows.min() - bulge, columns.max() + reach, rows.max() + bulge)

        def at_row(values: Plane) -> Plane:
            return np.interp(y, rows[::-1], values[::-1]).astype(np.float32)

        width, depth = at_row(widths), at_row(depths)
        half = np.maximum(np.hypot(width * cos, depth * sin), 1e-4)
        across = (x[None, :] - at_row(columns)[:, None]) / (view.scale * half)[:, None]
        row, column = np.nonzero(np.abs(across) < 1)
        s = across[row, column]
        c = np.sqrt(1 - s**4 if body.square else 1 - s * s)
        u = np.arcsin(s) - np.arctan2(depth * sin, width * cos)[row]
        towards = s * (sin * cos * (depth**2 - width**2) / half)[row] + c * (width * depth / half)[row]
        # At the same pixel row, a point nearer to the camera than the axis is higher up: hems become curves.
        beyond = np.maximum(rows[-1] - y, 0) - np.maximum(y - rows[0], 0)
        v = (at_row(heights) + beyond / (view.scale * cos_pitch))[row] + towards * (sin_pitch / cos_pitch)
        slope = (np.gradient(half) * view.scale)[row] if len(y) > 1 else np.zeros_like(s)
        surface = _Surface(
            rows=y[row],
            columns=x[column],
            depth=at_row(nearness)[row] + towards * cos_pitch,
            normal=(s, slope, c),
            u=_wrapped(u),
            v=v,
        )
        self._put(surface, (v >= heights[0]) & (v <= heights[-1]), view, material)

    def limb(self, limb: Limb, view: View, material: Material) -> None:
        """Draw a limb."""
        x0, y0, z0 = view.project(limb.start)
        x1, y1, z1 = view.project(limb.end)
        r0, r1 = limb.start_radius * view.scale, limb.end_radius * view.scale
        reach = max(r0, r1)
        y, x = self._pixels(min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach)
        off_y, off_x = (y - y0).astype(np.float32)[:, None], (x - x0).astype(np.float32)[None, :]
        along_x, along_y = x1 - x0, y1 - y0
        squared = max(along_x**2 + along_y**2, 1e-3)
        position = (off_x * along_x + off_y * along_y) / squared
        t = np.clip(position, 0, 1)
        radius = r0 + (r1 - r0) * t
        distance = np.hypot(off_x - t * along_x, off_y - t * along_y)
        row, column = np.nonzero((distance < radius) & (position <= 1) if limb.cut else distance < radius)
        t, radius, distance = t[row, column], radius[row, column], distance[row, column]
        normal_x = (off_x[0, column] - t * along_x) / radius
        normal_y = (off_y[row, 0] - t * along_y) / radius
        side = math.copysign(1 / math.sqrt(squared), along_y)
        s = np.clip(side * (normal_x * along_y - normal_y * along_x), -1, 1)
        c = np.sqrt(1 - (distance / radius) ** 2)
        surface = _Surface(
            rows=y[row],
            columns=x[column],
            depth=z0 + (z1 - z0) * t + c * radius / view.scale,
            normal=(normal_x, -normal_y, c),
            u=_wrapped(np.arcsin(s) - view.yaw),
            v=position[row, column] * math.dist(limb.start, limb.end),
        )
        self._put(surface, np.ones(len(t), dtype=np.bool_), view, material)

    def _pixels(self, left: float, top: float, right: float, bottom: float) -> tuple[Pixels, Pixels]:
        """The pixel rows and columns of a box, cut at the canvas's edges."""
        height, width = self._depth.shape
        return (
            np.arange(max(int(top), 0), max(min(int(bottom) + 2, height), 0)),
            np.arange(max(int(left), 0), max(min(int(right) + 2, width), 0)),
        )

    def _put(self, surface: _Surface, shown: Mask, view: View, material: Material) -> None:
        """Shade and draw the points that are shown and not behind a point that is already drawn."""
        rows, columns = surface.rows, surface.columns
        shown &= surface.depth > self._depth[rows, columns]
        if material.keep is not None:
            shown &= material.keep(surface.u, surface.v)
        if not shown.any():
            return
        u, v = surface.u[shown], surface.v[shown]
        right, up, towards = surface.normal
        x, y, z = right[shown], up[shown], towards[shown]
        lit = x * view.light[0] + y * view.light[1] + z * view.light[2]
        shade = (0.72 + 0.34 * lit) * (0.8 + 0.2 * z)
        if material.crease:
            shade *= 1 + material.crease * _folds(u, v)
        at = rows[shown], columns[shown]
        self.colour[at] = material.paint(u, v) * shade[:, None]
        self._depth[at] = surface.depth[shown]


def _wrapped(angle: Plane) -> Plane:
    """The angle wrapped to -pi to pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _folds(u: Plane, v: Plane) -> Plane:
    """Folds of hanging cloth, from -1 to 1: oblique waves of three lengths."""
    steep = np.sin(v * 61 + 2.6 * np.sin(u * 2.1 + v * 17))
    fine = np.sin(v * 113 - u * 5.3 + 1.9 * np.sin(v * 29))
    wide = np.sin(u * 3.7 + v * 23)
    return 0.45 * steep + 0.3 * fine + 0.25 * wide
