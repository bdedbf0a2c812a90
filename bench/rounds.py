"""Measurements in alternating rounds, so that other load on the machine affects all sides of a comparison."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

Input = TypeVar("Input")


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each side's result in each round. The first round is a warm-up; every other round has the reverse order."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            results[name].append(sides[name]())
    return {name: values[1:] for name, values in results.items()}


def ratios(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [our_value / base_value for our_value, base_value in zip(ours, baseline, strict=True)]


def median_ratio(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(ratios(ours, baseline))


def milliseconds(call: Callable[[Input], object], inputs: Iterable[Input]) -> list[float]:
    """The duration of each of several sequential calls."""
    durations = []
    for value in inputs:
        began = time.perf_counter()
        call(value)
        durations.append(1000 * (time.perf_counter() - began))
    return durations
