"""The learning rate schedule of a run."""

import math

from model.recipe import Schedule


def delayed_rate(iteration: int, schedule: Schedule, start: int) -> float:
    """`rate` for layers that are frozen until iteration `start`: 0, then the whole schedule in the remaining time."""
    if iteration < start:
        return 0.0
    return rate((iteration - start) * schedule.iterations // (schedule.iterations - start), schedule)


def rate(iteration: int, schedule: Schedule) -> float:
    """The learning rate divided by its peak: a linear warm-up from 1 %, then a cosine decay to 0 or steps."""
    if iteration < schedule.warm_up:
        return 0.01 + 0.99 * iteration / schedule.warm_up
    if schedule.kind == "step":
        return float(schedule.factor ** sum(iteration >= step for step in schedule.steps))
    progress = (iteration - schedule.warm_up) / (schedule.iterations - schedule.warm_up)
    return (1 + math.cos(math.pi * progress)) / 2
