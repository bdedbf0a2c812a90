"""The drawn cameras: position, light, colours and image quality."""

from dataclasses import dataclass

from drawing.canvas import Point
from drawing.fabrics import Colour
from drawing.scenes import Palette, Scene, garage, lobby, platform, plaza


@dataclass(frozen=True)
class DrawnCamera:
    """A drawn camera.

    cast: gains of red, green and blue. exposure: gain of all colours. contrast: a factor. veil: stray light, 0 to 1.
    noise: standard deviation, 0 to 1. softness: blur in pixels of the crop. quality: of the JPEG, 1 to 95. light: its
    direction (right, up, towards the camera), length about 1. shadow: strength of shadows, 0 to 1.
    """

    id: str
    scene: Scene
    palette: Palette
    cast: Colour
    exposure: float
    contrast: float
    veil: float
    noise: float
    softness: float
    quality: int
    light: Point
    shadow: float


CAMERAS: tuple[DrawnCamera, ...] = (
    DrawnCamera(
        id="gate-north",
        scene=plaza,
        palette=Palette((0.55, 0.42, 0.36), (0.60, 0.60, 0.58), (0.25, 0.38, 0.20), (0.25, 0.26, 0.28)),
        cast=(0.98, 1.0, 1.03),
        exposure=1.06,
        contrast=1.05,
        veil=0.02,
        noise=0.007,
        softness=0.35,
        quality=85,
        light=(0.45, 0.75, 0.48),
        shadow=0.5,
    ),
    DrawnCamera(
        id="lobby",
        scene=lobby,
        palette=Palette((0.66, 0.63, 0.58), (0.60, 0.57, 0.53), (0.40, 0.31, 0.28), (0.34, 0.27, 0.22)),
        cast=(1.04, 1.0, 0.94),
        exposure=0.97,
        contrast=0.95,
        veil=0.03,
        noise=0.01,
        softness=0.5,
        quality=80,
        light=(-0.25, 0.85, 0.46),
        shadow=0.3,
    ),
    DrawnCamera(
        id="parking",
        scene=garage,
        palette=Palette((0.55, 0.55, 0.52), (0.38, 0.38, 0.38), (0.75, 0.60, 0.10), (0.20, 0.20, 0.20)),
        cast=(1.0, 1.02, 0.95),
        exposure=0.88,
        contrast=0.97,
        veil=0.02,
        noise=0.016,
        softness=0.6,
        quality=75,
        light=(0.1, 0.92, 0.38),
        shadow=0.35,
    ),
    DrawnCamera(
        id="platform",
        scene=platform,
        palette=Palette((0.50, 0.52, 0.55), (0.50, 0.51, 0.53), (0.55, 0.58, 0.61), (0.30, 0.20, 0.21)),
        cast=(0.96, 1.0, 1.04),
        exposure=0.93,
        contrast=0.9,
        veil=0.05,
        noise=0.011,
        softness=0.7,
        quality=78,
        light=(-0.5, 0.7, 0.5),
        shadow=0.3,
    ),
    DrawnCamera(
        id="courtyard",
        scene=plaza,
        palette=Palette((0.72, 0.68, 0.60), (0.55, 0.47, 0.40), (0.35, 0.42, 0.18), (0.36, 0.30, 0.24)),
        cast=(1.04, 1.0, 0.95),
        exposure=1.1,
        contrast=1.08,
        veil=0.02,
        noise=0.007,
        softness=0.45,
        quality=82,
        light=(-0.6, 0.65, 0.46),
        shadow=0.55,
    ),
    DrawnCamera(
        id="corridor",
        scene=lobby,
        palette=Palette((0.60, 0.66, 0.66), (0.46, 0.52, 0.54), (0.18, 0.34, 0.46), (0.26, 0.30, 0.32)),
        cast=(0.96, 1.02, 1.0),
        exposure=0.9,
        contrast=0.95,
        veil=0.03,
        noise=0.012,
        softness=0.6,
        quality=78,
        light=(0.2, 0.88, 0.42),
        shadow=0.3,
    ),
    DrawnCamera(
        id="garage-east",
        scene=garage,
        palette=Palette((0.62, 0.60, 0.55), (0.46, 0.44, 0.41), (0.62, 0.16, 0.14), (0.25, 0.24, 0.22)),
        cast=(1.05, 1.0, 0.9),
        exposure=0.84,
        contrast=0.95,
        veil=0.03,
        noise=0.014,
        softness=0.65,
        quality=76,
        light=(-0.2, 0.9, 0.38),
        shadow=0.35,
    ),
    DrawnCamera(
        id="platform-west",
        scene=platform,
        palette=Palette((0.42, 0.40, 0.40), (0.58, 0.55, 0.50), (0.62, 0.34, 0.20), (0.20, 0.26, 0.30)),
        cast=(1.02, 1.0, 0.97),
        exposure=1.0,
        contrast=0.95,
        veil=0.03,
        noise=0.01,
        softness=0.55,
        quality=80,
        light=(0.5, 0.72, 0.48),
        shadow=0.4,
    ),
)
