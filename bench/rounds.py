"""Measuring sides in turn, round after round, so that what else happens on the machine meets all of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side gives in each round. A first round warms up and does not count; every other one runs backwards."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            found[name].append(sides[name]())
    return {name: values[1:] for name, values in found.items()}


def median_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(one / another for one, another in zip(ours, other, strict=True))
