"""The renderer behind the drawn people: what is near hides what is far, and bodies turn."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from drawing.canvas import Canvas, Limb, Material, Plane, Turned, View
from drawing.fabrics import Colour, over, plain, striped

RED: Colour = (0.9, 0.1, 0.1)
BLUE: Colour = (0.1, 0.1, 0.9)
DRUM = Turned(((0.0, 0.3, 0.2, 0.0, 0.0), (1.0, 0.3, 0.2, 0.0, 0.0)))


def view(yaw: float = 0.0, depth: float = 0.0, pitch: float = 0.2) -> View:
    return View(x=50, y=90, scale=80, yaw=yaw, pitch=pitch, light=(0.0, 0.0, 1.0), depth=depth)


def canvas() -> Canvas:
    return Canvas(np.full((100, 100, 3), 0.5, dtype=np.float32))


def colour_at(drawn: Canvas, row: int = 50, column: int = 50) -> str:
    red, _, blue = drawn.colour[row, column]
    return "red" if red > blue + 0.2 else "blue" if blue > red + 0.2 else "background"


@pytest.mark.parametrize("order", [(RED, BLUE), (BLUE, RED)])
def test_the_nearer_body_hides_the_farther_in_any_order_of_drawing(order: tuple[Colour, Colour]) -> None:
    drawn = canvas()
    for colour in order:
        drawn.turned(DRUM, view(depth=1.0 if colour is BLUE else -1.0), Material(plain(colour)))
    assert colour_at(drawn) == "blue"


def test_an_arm_hides_the_body_in_front_of_it_and_is_hidden_behind_it() -> None:
    def torso_with_arm(forward: float) -> str:
        drawn = canvas()
        drawn.limb(Limb((-0.2, 0.5, forward), (0.2, 0.5, forward), 0.05, 0.05), view(pitch=0.0), Material(plain(RED)))
        drawn.turned(DRUM, view(pitch=0.0), Material(plain(BLUE)))
        return colour_at(drawn)

    assert (torso_with_arm(0.3), torso_with_arm(-0.3)) == ("red", "blue")


@pytest.mark.parametrize(
    ("yaw", "seen"),
    [(0.0, "red"), (math.pi, "blue"), (0.4, "red"), (math.pi - 0.4, "blue"), (2 * math.pi, "red")],
)
def test_a_turned_body_shows_its_front_or_its_back(yaw: float, seen: str) -> None:
    drawn = canvas()
    two_sided = over(plain(BLUE), plain(RED), lambda u, v: np.abs(u) < math.pi / 2)
    drawn.turned(DRUM, view(yaw), Material(two_sided))
    assert colour_at(drawn) == seen


def test_a_body_facing_right_shows_its_front_at_the_right() -> None:
    drawn = canvas()
    two_sided = over(plain(BLUE), plain(RED), lambda u, v: np.abs(u) < math.pi / 2)
    drawn.turned(DRUM, view(math.pi / 2), Material(two_sided))
    assert (colour_at(drawn, column=42), colour_at(drawn, column=58)) == ("blue", "red")


def test_an_arm_stretched_forward_points_where_the_body_faces() -> None:
    def columns(yaw: float) -> NDArray[np.intp]:
        drawn = canvas()
        drawn.limb(Limb((0.0, 0.5, 0.1), (0.0, 0.5, 0.4), 0.03, 0.03), view(yaw), Material(plain(RED)))
        return np.nonzero((drawn.colour[..., 0] != 0.5).any(axis=0))[0]

    assert columns(math.pi / 2).min() > 50
    assert columns(-math.pi / 2).max() < 50
    assert np.ptp(columns(0.0)) < 8


def test_a_body_is_as_wide_as_its_section() -> None:
    def width(yaw: float) -> int:
        drawn = canvas()
        drawn.turned(DRUM, view(yaw), Material(plain(RED)))
        return int((drawn.colour[50, :, 0] != 0.5).sum())

    assert width(0.0) == pytest.approx(2 * 0.3 * 80, abs=2)
    assert width(math.pi / 2) == pytest.approx(2 * 0.2 * 80, abs=2)


def test_a_camera_that_looks_down_sees_hems_curve() -> None:
    def lowest(column: int, pitch: float) -> int:
        drawn = canvas()
        drawn.turned(DRUM, view(pitch=pitch), Material(plain(RED)))
        return int(np.flatnonzero(drawn.colour[:, column, 0] != 0.5).max())

    assert abs(lowest(50, 0.0) - lowest(70, 0.0)) <= 1
    assert lowest(50, 0.4) > lowest(70, 0.4) + 1


def test_the_background_shows_through_regions_that_are_not_kept() -> None:
    drawn = canvas()
    drawn.turned(DRUM, view(pitch=0.0), Material(plain(RED), keep=lambda u, v: v > 0.5))
    assert (colour_at(drawn, row=30), colour_at(drawn, row=70)) == ("red", "background")


def test_a_body_off_the_canvas_changes_nothing() -> None:
    drawn = canvas()
    away = View(x=500, y=-300, scale=80, yaw=0.3, pitch=0.2, light=(0.0, 0.0, 1.0))
    drawn.turned(DRUM, away, Material(plain(RED)))
    drawn.limb(Limb((0.0, 0.5, 0.0), (0.3, 0.2, 0.1), 0.05, 0.02), away, Material(plain(RED)))
    assert (drawn.colour == 0.5).all()


def test_stripes_have_their_period_and_share() -> None:
    v: Plane = np.arange(0, 1, 0.001, dtype=np.float64)
    red: NDArray[np.bool_] = striped(BLUE, RED, period=0.1, share=0.3)(np.zeros_like(v), v)[:, 0] > 0.5
    assert red.mean() == pytest.approx(0.3, abs=0.02)
    assert (np.diff(red.astype(np.int8)) == 1).sum() == 9
