"""Poses: the joints of legs and arms at one moment of walking or standing."""

import math
from dataclasses import dataclass
from typing import Literal

from drawing.canvas import Point
from drawing.wardrobe import Person

SHOULDER = 0.795
"""Height of the shoulder joints. All lengths here are in body heights."""

_HIP = 0.515
_THIGH = 0.245
_SHIN = 0.235
_ANKLE = 0.035
_UPPER_ARM = 0.155
_FOREARM = 0.14

Gesture = Literal["swing", "phone", "pockets", "folded"]


@dataclass(frozen=True)
class Pose:
    """A moment of walking or standing.

    phase: of the walking cycle, in radians. stride: the angle of a thigh's swing in radians; 0 stands. turn: the head's
    angle to the body in radians. gesture: of the arms; only `swing` follows the legs.
    """

    phase: float
    stride: float
    turn: float
    gesture: Gesture

    @property
    def spread(self) -> float:
        """How far a knee is in front of or behind the hip."""
        return _THIGH * math.sin(self.stride) * abs(math.sin(self.phase))


@dataclass(frozen=True)
class Leg:
    """The joints of one leg; side is 1 for the left one and -1 for the right one."""

    side: float
    hip: Point
    knee: Point
    ankle: Point
    toe: Point

    @property
    def lowest(self) -> float:
        """The height of the sole's lowest point."""
        return min(self.ankle[1] - _ANKLE, self.toe[1] - 0.014)


@dataclass(frozen=True)
class Arm:
    """The joints of one arm; side as for legs."""

    side: float
    shoulder: Point
    elbow: Point
    wrist: Point
    hand: Point


def leg_joints(side: float, person: Person, pose: Pose) -> Leg:
    """A leg in this pose: straight while it carries, bent while it swings forward. side: 1 is left, -1 is right."""
    thigh = pose.stride * side * math.sin(pose.phase)
    lifted = max(0.0, side * math.cos(pose.phase))
    shin = thigh - pose.stride * (0.15 + 1.7 * lifted)
    hip = (side * 0.046 * math.sqrt(person.girth), _HIP, 0.0)
    knee = _hang(hip, _THIGH, thigh)
    ankle = _hang(knee, _SHIN, shin)
    pitch = max(0.0, -shin) * 0.75
    toe = (ankle[0] * 1.12, ankle[1] - 0.02 - 0.085 * math.sin(pitch), ankle[2] + 0.082 * math.cos(pitch))
    return Leg(side, hip, knee, ankle, toe)


def arm_joints(side: float, person: Person, pose: Pose) -> Arm:
    """An arm in this pose. side: 1 is left, -1 is right."""
    shoulder = (side * 0.099 * person.shoulders * person.girth**0.3, SHOULDER, 0.0)
    swing = -0.9 * pose.stride * side * math.sin(pose.phase)
    # Forward angles of upper arm and forearm in radians; outward offsets of elbow and wrist.
    upper, lower, elbow_out, wrist_out = swing, swing + 0.25 + 0.3 * max(0.0, swing), 0.02, -0.002
    if pose.gesture == "phone" and side > 0:
        upper, lower, elbow_out, wrist_out = 0.35, 2.1, 0.01, -0.05
    elif pose.gesture == "pockets":
        upper, lower, elbow_out, wrist_out = -0.15, 0.22, 0.034, -0.03
    elif pose.gesture == "folded":
        upper, lower, elbow_out, wrist_out = 0.25, 1.45, 0.026, -0.11
    elbow = _hang(shoulder, _UPPER_ARM, upper, side * elbow_out)
    wrist = _hang(elbow, _FOREARM, lower, side * wrist_out)
    hand = _hang(wrist, 0.045, lower + 0.1, side * wrist_out * 0.3)
    return Arm(side, shoulder, elbow, wrist, hand)


def between(start: Point, end: Point, share: float) -> Point:
    """The point at `share` (0 to 1) of the way from `start` to `end`."""
    left, up, forward = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return left, up, forward


def _hang(start: Point, length: float, forward: float, left: float = 0.0) -> Point:
    """The end of a bone that hangs from `start`, swung forward by an angle in radians and moved to the left."""
    return start[0] + left, start[1] - length * math.cos(forward), start[2] + length * math.sin(forward)
