"""Rendering a person in front of a camera as a detector's crop."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from drawing.cameras import DrawnCamera
from drawing.canvas import Canvas, Plane, View
from drawing.fabrics import Colour
from drawing.figures import draw_person
from drawing.pose import Pose
from drawing.scenes import FRAME_SIZE, pitch_at, pixel_of, pixels_per_metre
from drawing.wardrobe import Person

CROP_SIZE = (80, 160)
"""Width and height of every crop in pixels."""

_OVERSAMPLING = 2

_SATURATION = 0.85
"""Relative to the paints, which are more saturated than cloth."""


@dataclass(frozen=True)
class Stand:
    """A person's position (metres right of the camera and away from it), heading (0 faces the camera) and pose."""

    x: float
    z: float
    yaw: float
    pose: Pose


@dataclass(frozen=True)
class Companion:
    """Another person in the crop; a nearer one partly hides the person. across: body heights to the right."""

    person: Person
    yaw: float
    pose: Pose
    across: float
    nearer: bool


@dataclass(frozen=True)
class Obstacle:
    """Something between camera and person: a band of `size` (share of the crop's width or height) around `centre`."""

    upright: bool
    centre: float
    size: float
    colour: Colour


@dataclass(frozen=True)
class Box:
    """The detector's box around the person: its height in body heights, and the feet's position in it, 0 to 1."""

    height: float
    feet_x: float
    feet_y: float


@dataclass(frozen=True)
class Shot:
    """Everything that a crop shows. motion: pixels that the person moves while the shutter is open."""

    person: Person
    stand: Stand
    box: Box
    companion: Companion | None = None
    obstacle: Obstacle | None = None
    motion: int = 0


def photograph(
    shot: Shot, camera: DrawnCamera, frame: Image.Image, exposure: float, rng: np.random.Generator
) -> Image.Image:
    """The crop as RGB of CROP_SIZE. `frame` is the camera's empty frame; `exposure` is the shot's gain."""
    width, height = CROP_SIZE[0] * _OVERSAMPLING, CROP_SIZE[1] * _OVERSAMPLING
    stand = shot.stand
    view = View(
        x=shot.box.feet_x * width,
        y=shot.box.feet_y * height,
        scale=height / shot.box.height,
        yaw=stand.yaw,
        pitch=pitch_at(stand.z),
        light=camera.light,
    )
    background = _background(frame, stand, shot.person.height, view, (width, height))
    canvas = Canvas(_with_shadow(background, view, camera))
    if shot.companion is not None:
        _draw_companion(canvas, shot.companion, shot.person, view)
    draw_person(canvas, shot.person, stand.pose, view)
    if shot.obstacle is not None:
        _draw_obstacle(canvas.colour, shot.obstacle)
    return _develop(canvas.colour, shot.motion, camera, exposure, rng)


def _background(
    frame: Image.Image, stand: Stand, metres: float, view: View, size: tuple[int, int]
) -> NDArray[np.float32]:
    """The frame's section behind the crop, moved to lie inside the frame."""
    column, row = pixel_of(stand.x, 0, stand.z)
    zoom = pixels_per_metre(stand.z) * metres / view.scale
    wide, high = size[0] * zoom, size[1] * zoom
    left = min(max(column - view.x * zoom, 0), FRAME_SIZE[0] - wide)
    top = min(max(row - view.y * zoom, 0), FRAME_SIZE[1] - high)
    cut = frame.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
    return np.asarray(cut, dtype=np.float32) / np.float32(255)


def _with_shadow(background: NDArray[np.float32], view: View, camera: DrawnCamera) -> NDArray[np.float32]:
    """Darker floor under the feet, and a softer shadow away from the light."""
    height, width = background.shape[:2]
    y = (np.arange(height, dtype=np.float32)[:, None] - view.y) / view.scale
    x = (np.arange(width, dtype=np.float32)[None, :] - view.x) / view.scale
    contact = np.exp(-((x / 0.12) ** 2) - (y / 0.03) ** 2)
    away = -np.sign(camera.light[0]) * 0.18
    cast = 0.7 * np.exp(-(((x - away) / 0.2) ** 2) - ((y + 0.02) / 0.04) ** 2)
    darkness = camera.shadow * np.maximum(contact, cast)
    shaded: NDArray[np.float32] = (background * (1 - darkness)[..., None]).astype(np.float32)
    return shaded


def _draw_companion(canvas: Canvas, companion: Companion, person: Person, view: View) -> None:
    larger = (1.15 if companion.nearer else 0.85) * companion.person.height / person.height
    draw_person(
        canvas,
        companion.person,
        companion.pose,
        View(
            x=view.x + companion.across * view.scale,
            y=view.y + (0.13 if companion.nearer else -0.12) * view.scale,
            scale=view.scale * larger,
            yaw=companion.yaw,
            pitch=view.pitch,
            light=view.light,
            depth=2.0 if companion.nearer else -2.0,
        ),
    )


def _draw_obstacle(picture: Plane, obstacle: Obstacle) -> None:
    """Paint a round bar over the picture, in place."""
    length = picture.shape[1 if obstacle.upright else 0]
    s = (np.arange(length, dtype=np.float32) / length - obstacle.centre) / (obstacle.size / 2)
    covered = np.abs(s) < 1
    shade = 0.55 + 0.5 * np.sqrt(1 - np.clip((s[covered] + 0.3) / 1.3, -1, 1) ** 2)
    bar = shade[:, None] * np.array(obstacle.colour, dtype=np.float32)
    if obstacle.upright:
        picture[:, covered] = bar[None, :, :]
    else:
        picture[covered] = bar[:, None, :]


def _develop(
    picture: Plane, motion: int, camera: DrawnCamera, exposure: float, rng: np.random.Generator
) -> Image.Image:
    """Blur, size, colour cast, noise and compression, in a camera's order."""
    if motion > 1:
        moved = [np.roll(picture, step - motion // 2, axis=1) for step in range(motion)]
        picture = np.mean(moved, axis=0, dtype=np.float32)
    eight_bits = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    small = eight_bits.resize(CROP_SIZE, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(camera.softness))
    light = np.asarray(small, dtype=np.float32) / 255
    grey = light.mean(axis=2, keepdims=True)
    light = grey + (light - grey) * _SATURATION
    light = light * np.array(camera.cast, dtype=np.float32) * (camera.exposure * exposure)
    light = (light - 0.45) * camera.contrast + 0.45
    light = camera.veil + (1 - camera.veil) * light
    grain = camera.noise * rng.standard_normal(light.shape, dtype=np.float32)
    grain = 0.5 * grain + 0.5 * grain[..., :1]
    exposed = Image.fromarray((np.clip(light + grain, 0, 1) * 255).astype(np.uint8))
    compressed = BytesIO()
    exposed.save(compressed, "JPEG", quality=camera.quality)
    with Image.open(compressed) as crop:
        return crop.convert("RGB")
