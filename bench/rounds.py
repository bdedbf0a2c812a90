"""Measuring sides in alternating rounds, so that other load on the machine affects all of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each side's result in each round. The first round is a warm-up; every other round has the reverse order."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            found[name].append(sides[name]())
    return {name: values[1:] for name, values in found.items()}


def median_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(one / another for one, another in zip(ours, other, strict=True))
