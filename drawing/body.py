"""Legs, hips, torso and arms with the garments on them."""

import numpy as np

from drawing.canvas import Canvas, Limb, Material, Paint, Turned, View
from drawing.clothes import lower_paint, sleeve_paint, upper_paint
from drawing.fabrics import darker, over, paler, plain
from drawing.pose import Arm, Leg, Pose, between
from drawing.wardrobe import Outfit, Person

# The width of the torso's garment relative to the body, and the height of its hem in body heights.
_LOOSENESS = {"tank": 0.96, "t-shirt": 1.0, "dress": 0.96, "coat": 1.12, "jacket": 1.1, "hoodie": 1.1}
_DEFAULT_LOOSENESS = 1.03
_HEMS = {
    "coat": 0.36,
    "open": 0.48,
    "hoodie": 0.495,
    "jacket": 0.495,
    "sweater": 0.5,
    "shirt": 0.585,
    "polo": 0.51,
    "dress": 0.56,
}
_DEFAULT_HEM = 0.505
# Width relative to the thigh, and the radius at the ankle.
_TROUSERS = {"trousers": (1.16, 0.036), "jeans": (1.08, 0.031), "leggings": (0.98, 0.0225)}


def draw_leg(canvas: Canvas, person: Person, leg: Leg, view: View) -> None:
    """A leg with its skin, trouser leg and shoe."""
    outfit, girth = person.outfit, person.girth**0.7
    skin = Material(plain(person.skin))
    knee = 0.036 * girth
    cloth = Material(lower_paint(outfit), crease=0.07)
    if wears_skirt(outfit) or outfit.lower_kind == "shorts":
        canvas.limb(Limb(leg.hip, leg.knee, 0.052 * girth, knee), view, skin)
        canvas.limb(Limb(leg.knee, leg.ankle, knee, 0.021), view, skin)
    else:
        wide, hem = _TROUSERS[outfit.lower_kind]
        canvas.limb(Limb(leg.hip, leg.knee, 0.054 * girth * wide, 0.038 * girth * wide), view, cloth)
        canvas.limb(Limb(leg.knee, leg.ankle, 0.038 * girth * wide, hem, cut=True), view, cloth)
    if outfit.lower_kind == "shorts" and not wears_skirt(outfit):
        end = between(leg.hip, leg.knee, 0.86)
        canvas.limb(Limb(leg.hip, end, 0.066 * girth, 0.053 * girth, cut=True), view, cloth)
    _draw_shoe(canvas, outfit, leg, view)


def draw_hips(canvas: Canvas, person: Person, pose: Pose, view: View) -> None:
    """The seat of the trousers, or the skirt, with a belt."""
    outfit, girth = person.outfit, person.girth
    belt = plain(darker(outfit.lower, 0.5))
    paint = over(lower_paint(outfit), belt, lambda u, v: (v > 0.598) & (v < 0.612))
    if outfit.cut == "dress":
        _draw_skirt(canvas, upper_paint(person), 0.33, girth, pose, view)
        return
    if wears_skirt(outfit):
        _draw_skirt(canvas, paint, 0.32 if outfit.lower_kind == "skirt" else 0.12, girth, pose, view)
        return
    seat = (
        (0.455, 0.055 * girth, 0.05 * girth, 0.0, 0.0),
        (0.49, 0.092 * girth, 0.062 * girth, 0.0, 0.0),
        (0.53, 0.096 * girth, 0.066 * girth, 0.0, 0.0),
        (0.62, 0.082 * girth, 0.056 * girth, 0.0, 0.0),
    )
    canvas.turned(Turned(seat), view, Material(paint, crease=0.08))


def draw_torso(canvas: Canvas, person: Person, pose: Pose, view: View) -> None:
    """The torso in its garment, the neck, and a collar or hood."""
    outfit, girth, wide = person.outfit, person.girth, person.shoulders
    loose = _LOOSENESS.get(outfit.cut, _DEFAULT_LOOSENESS)
    hem = _HEMS.get(outfit.cut, _DEFAULT_HEM)
    body = girth * loose
    belly = max(0.0, girth - 1.05) * 0.1
    waist = (0.086 if outfit.cut == "dress" else 0.093) * body
    swing = 0.05 + 0.8 * pose.spread if outfit.cut == "coat" else 0.0
    sections = (
        (0.53, 0.099 * body, 0.07 * body + belly, 0.0, belly / 2),
        (0.62, waist, 0.062 * body + belly, 0.0, belly / 2),
        (0.72, 0.1 * body * wide, 0.067 * body + belly / 2, 0.0, 0.004),
        (0.765, 0.105 * body * wide, 0.064 * body, 0.0, 0.0),
        (0.80, 0.106 * girth**0.3 * wide, 0.052 * body, 0.0, -0.004),
        (0.822, 0.088 * wide, 0.042, 0.0, -0.006),
        (0.838, 0.05, 0.034, 0.0, -0.006),
        (0.848, 0.034, 0.03, 0.0, -0.006),
    )
    lowest = (hem, 0.1 * body, max(0.072 * body + belly, swing), 0.0, belly / 2)
    torso = Turned((lowest, *(section for section in sections if section[0] > hem)))
    canvas.turned(torso, view, Material(upper_paint(person), crease=0.09))
    throat = Limb((0.0, 0.80, -0.004), (0.0, 0.885, 0.004), 0.034, 0.03)
    canvas.limb(throat, view, Material(plain(darker(person.skin, 0.12))))
    if outfit.cut == "hoodie":
        hood = ((0.79, 0.05, 0.03, 0.0, -0.05), (0.83, 0.062, 0.042, 0.0, -0.042), (0.862, 0.046, 0.026, 0.0, -0.04))
        canvas.turned(Turned(hood), view, Material(plain(darker(outfit.upper, 0.12)), crease=0.15))
    elif outfit.cut in ("shirt", "polo", "jacket", "coat", "open"):
        collar = ((0.826, 0.05, 0.044, 0.0, -0.006), (0.858, 0.038, 0.036, 0.0, -0.006))
        colour = outfit.second if outfit.cut == "polo" else darker(outfit.upper, 0.15)
        canvas.turned(Turned(collar), view, Material(plain(colour), keep=lambda u, v: np.abs(u) > 0.45))


def draw_arm(canvas: Canvas, person: Person, arm: Arm, view: View) -> None:
    """An arm with its sleeve."""
    outfit, girth = person.outfit, person.girth**0.6
    skin = Material(plain(person.skin))
    canvas.limb(Limb(arm.wrist, arm.hand, 0.017, 0.015), view, skin)
    cloth = Material(sleeve_paint(outfit), crease=0.1)
    thick = girth * (1.14 if outfit.cut in ("jacket", "coat", "hoodie") else 1.05)
    if outfit.long_sleeves:
        canvas.limb(Limb(arm.shoulder, arm.elbow, 0.034 * thick, 0.03 * thick), view, cloth)
        canvas.limb(Limb(arm.elbow, arm.wrist, 0.03 * thick, 0.024, cut=True), view, cloth)
        return
    canvas.limb(Limb(arm.shoulder, arm.elbow, 0.031 * girth, 0.025 * girth), view, skin)
    canvas.limb(Limb(arm.elbow, arm.wrist, 0.025 * girth, 0.017), view, skin)
    if outfit.cut not in ("tank", "dress"):
        end = between(arm.shoulder, arm.elbow, 0.74)
        canvas.limb(Limb(arm.shoulder, end, 0.034 * thick, 0.034 * thick, cut=True), view, cloth)


def wears_skirt(outfit: Outfit) -> bool:
    """Whether the thighs are covered by one piece and the shins are bare."""
    if outfit.cut == "dress":
        return outfit.lower_kind != "leggings"
    return outfit.lower_kind in ("skirt", "long-skirt")


def _draw_shoe(canvas: Canvas, outfit: Outfit, leg: Leg, view: View) -> None:
    heel = (leg.ankle[0], leg.ankle[1] - 0.012, leg.ankle[2] - 0.012)
    canvas.limb(Limb(heel, leg.toe, 0.024, 0.019), view, Material(plain(outfit.shoes)))
    sole = paler(outfit.shoes, 0.5) if sum(outfit.shoes) > 0.9 else darker(outfit.shoes)
    under_heel, under_toe = ((point[0], point[1] - 0.009, point[2]) for point in (heel, leg.toe))
    canvas.limb(Limb(under_heel, under_toe, 0.0225, 0.0175), view, Material(plain(sole)))


def _draw_skirt(canvas: Canvas, paint: Paint, hem: float, girth: float, pose: Pose, view: View) -> None:
    long = (0.62 - hem) / 0.3
    sections = (
        (hem, (0.098 + 0.018 * long) * girth, max(0.085 * girth, 0.05 + pose.spread * min(long, 1.25)), 0.0, 0.0),
        (0.42, 0.107 * girth, max(0.08 * girth, 0.05 + pose.spread * 0.5), 0.0, 0.0),
        (0.52, 0.098 * girth, 0.07 * girth, 0.0, 0.0),
        (0.63, 0.078 * girth, 0.056 * girth, 0.0, 0.0),
    )
    canvas.turned(Turned(sections), view, Material(paint, crease=0.13))
