"""How the learning rate goes over a run."""

import math

from model.recipe import Schedule


def late_rate(iteration: int, schedule: Schedule, start: int) -> float:
    """The share for layers that join at iteration `start`: the whole schedule, in the time that is left."""
    left = schedule.iterations - start
    return rate((iteration - start) * schedule.iterations // left, schedule) if iteration >= start else 0.0


def rate(iteration: int, schedule: Schedule) -> float:
    """The learning rate as a share of its peak: up linearly from 1 %, then down as half a cosine or in steps."""
    if iteration < schedule.warm_up:
        return 0.01 + 0.99 * iteration / schedule.warm_up
    if schedule.kind == "step":
        return float(schedule.factor ** sum(iteration >= step for step in schedule.steps))
    fallen = (iteration - schedule.warm_up) / (schedule.iterations - schedule.warm_up)
    return (1 + math.cos(math.pi * fallen)) / 2
