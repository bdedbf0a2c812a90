"""Drawing a whole person from its parts."""

from dataclasses import replace

from drawing.bags import draw_bag
from drawing.body import draw_arm, draw_hips, draw_leg, draw_torso, wears_skirt
from drawing.canvas import Canvas, Limb, Material, View
from drawing.fabrics import plain
from drawing.head import draw_head
from drawing.pose import Pose, arm_joints, leg_joints
from drawing.wardrobe import Person


def draw_person(canvas: Canvas, person: Person, pose: Pose, view: View) -> None:
    """Draw a whole person who stands on the view's origin."""
    legs = [leg_joints(side, person, pose) for side in (-1.0, 1.0)]
    right_arm, left_arm = (arm_joints(side, person, pose) for side in (-1.0, 1.0))
    lowest = min(leg.lowest for leg in legs)
    view = replace(view, y=view.y + view.scale * lowest)
    # A skirt or coat hides the legs, although a knee in mid-step is in front of the drawn cloth.
    covered = wears_skirt(person.outfit) or person.outfit.cut in ("dress", "coat")
    under = replace(view, depth=view.depth - (0.2 if covered else 0.05))
    for leg in legs:
        draw_leg(canvas, person, leg, under)
    draw_hips(canvas, person, pose, replace(view, depth=view.depth - 0.05))
    draw_torso(canvas, person, pose, view)
    draw_arm(canvas, person, right_arm, view)
    draw_arm(canvas, person, left_arm, view)
    if pose.gesture == "phone":
        left, up, forward = left_arm.hand
        phone = Limb(left_arm.hand, (left, up + 0.035, forward + 0.01), 0.014, 0.014)
        canvas.limb(phone, view, Material(plain((0.07, 0.07, 0.08))))
    draw_head(canvas, person, replace(view, yaw=view.yaw + pose.turn))
    draw_bag(canvas, person, right_arm, view)
