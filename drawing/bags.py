"""Bags that persons carry."""

import numpy as np

from drawing.canvas import Canvas, Limb, Material, Point, Turned, View
from drawing.fabrics import darker, over, plain
from drawing.pose import SHOULDER, Arm
from drawing.wardrobe import Outfit, Person


def draw_bag(canvas: Canvas, person: Person, right_arm: Arm, view: View) -> None:
    """The person's bag, if any; straps on the torso are part of the torso's paint."""
    outfit, girth = person.outfit, person.girth
    dark = plain(darker(outfit.bag_colour, 0.4))
    seams = over(plain(outfit.bag_colour), dark, lambda u, v: np.abs(np.sin(v * 46)) < 0.12)
    material = Material(seams, crease=0.07)
    match outfit.bag:
        case "backpack":
            behind = -0.072 * girth - 0.045
            pack = (
                (0.565, 0.07, 0.045, 0.0, behind),
                (0.60, 0.083, 0.056, 0.0, behind),
                (0.74, 0.08, 0.052, 0.0, behind),
                (0.80, 0.06, 0.036, 0.0, behind + 0.01),
                (0.815, 0.03, 0.02, 0.0, behind + 0.014),
            )
            canvas.turned(Turned(pack, square=True), view, material)
        case "messenger":
            box = tuple((height, 0.03, 0.078, 0.125 * girth, 0.0) for height in (0.44, 0.57))
            canvas.turned(Turned(box, square=True), view, material)
        case "shoulder":
            box = tuple((height, 0.03, deep, -0.135 * girth, -0.01) for height, deep in ((0.53, 0.073), (0.645, 0.06)))
            canvas.turned(Turned(box, square=True), view, material)
            top = (right_arm.shoulder[0] * 0.92, SHOULDER + 0.03, 0.0)
            for forward in (-0.05, 0.03):
                canvas.limb(Limb(top, (-0.145 * girth, 0.64, forward), 0.008, 0.008), view, Material(dark))
        case "tote" | "briefcase":
            _draw_carried(canvas, outfit, right_arm.hand, material, view)


def _draw_carried(canvas: Canvas, outfit: Outfit, hand: Point, material: Material, view: View) -> None:
    left, up, forward = hand
    drop, tall, deep = (0.07, 0.15, 0.062) if outfit.bag == "tote" else (0.028, 0.105, 0.09)
    top = up - drop
    box = tuple((height, 0.024, deep, left, forward) for height in (top - tall, top))
    canvas.turned(Turned(box, square=True), view, material)
    handle = Material(plain(darker(outfit.bag_colour)))
    for end in (-0.6, 0.6):
        canvas.limb(Limb(hand, (left, top, forward + end * deep), 0.006, 0.006), view, handle)
