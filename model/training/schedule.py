"""The learning rate schedule of a run."""

import math

from model.recipe import Schedule


def delayed_rate(iteration: int, schedule: Schedule, start: int) -> float:
    """The factor for layers that are frozen until iteration `start`: the whole schedule, compressed into the rest."""
    left = schedule.iterations - start
    return rate((iteration - start) * schedule.iterations // left, schedule) if iteration >= start else 0.0


def rate(iteration: int, schedule: Schedule) -> float:
    """The learning rate divided by its peak: a linear warm-up from 1 %, then a cosine decay to 0 or steps."""
    if iteration < schedule.warm_up:
        return 0.01 + 0.99 * iteration / schedule.warm_up
    if schedule.kind == "step":
        return float(schedule.factor ** sum(iteration >= step for step in schedule.steps))
    fallen = (iteration - schedule.warm_up) / (schedule.iterations - schedule.warm_up)
    return (1 + math.cos(math.pi * fallen)) / 2
