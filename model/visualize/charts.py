"""Training curves and the CMC curve, drawn by matplotlib."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from model.visualize.style import LINES, add_legend, figure, set_title

Curve = tuple[Sequence[float], Sequence[float]]
"""Iterations, and the value at each."""

_SIZE = (5.2, 3.3)
_FAINT_LINE = 0.25
_POINTS_PER_WINDOW = 40


def losses_figure(title: str, curves: dict[str, Curve]) -> Figure:
    """Losses by name, on a logarithmic scale if all are above 0.

    A long curve is drawn faint, with its moving mean over it.
    """
    chart, (axes,) = _over_iterations(title)
    for colour, (name, curve) in zip(_colours(len(curves)), curves.items(), strict=True):
        _line_and_mean(axes, curve, colour, name)
    if all(value > 0 for _, values in curves.values() for value in values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(curves) > 1:
        add_legend(axes)
    return chart


def shares_figure(title: str, curves: dict[str, Curve]) -> Figure:
    """Fractions of 1 by name, with a mark at each measurement."""
    chart, (axes,) = _over_iterations(title)
    for colour, (name, (iterations, values)) in zip(_colours(len(curves)), curves.items(), strict=True):
        axes.plot(iterations, values, color=colour, marker="o", markersize=4, label=name)
    axes.yaxis.set_major_formatter(_percent)
    add_legend(axes)
    return chart


def schedule_figure(title: str, curve: Curve) -> Figure:
    """One curve without smoothing, such as the learning rate."""
    chart, (axes,) = _over_iterations(title)
    axes.plot(*curve, color=LINES[0], marker="o" if len(curve[0]) == 1 else "")
    axes.set_ylim(bottom=0)
    return chart


def rate_figure(title: str, curve: Curve) -> Figure:
    """One measured curve with its moving mean, on an axis from 0."""
    chart, (axes,) = _over_iterations(title)
    _line_and_mean(axes, curve, LINES[0], title)
    axes.set_ylim(bottom=0)
    return chart


def cmc_figure(cmc: NDArray[np.float64]) -> Figure:
    """`(R,)`: the share of queries with a right answer in the first 1 ... R ranks."""
    chart, (axes,) = figure(*_SIZE)
    axes.plot(np.arange(1, len(cmc) + 1), cmc, color=LINES[0], marker="o", markersize=4)
    axes.yaxis.set_major_formatter(_percent)
    lowest = float(np.floor(min(cmc[0], 0.95) * 10) / 10)
    axes.set(xlabel="rank", ylim=(lowest, 1 + 0.03 * (1 - lowest)), xlim=(0.5, len(cmc) + 0.5))
    axes.set_xticks([1, *range(5, len(cmc) + 1, 5)])
    set_title(axes, "Right answer found up to rank (CMC)")
    return chart


def _over_iterations(title: str) -> tuple[Figure, list[Axes]]:
    chart, axes = figure(*_SIZE)
    axes[0].set_xlabel("iteration")
    set_title(axes[0], title)
    return chart, axes


def _line_and_mean(axes: Axes, curve: Curve, colour: str, name: str) -> None:
    iterations, values = map(np.asarray, curve)
    window = len(values) // _POINTS_PER_WINDOW
    if window < 2:
        axes.plot(iterations, values, color=colour, label=name, marker="o" if len(values) == 1 else "")
        return
    kernel = np.ones(window) / window
    axes.plot(iterations, values, color=colour, alpha=_FAINT_LINE, linewidth=1)
    axes.plot(np.convolve(iterations, kernel, "valid"), np.convolve(values, kernel, "valid"), color=colour, label=name)


def _colours(count: int) -> list[str]:
    return [LINES[number % len(LINES)] for number in range(count)]


def _percent(value: float, _: float) -> str:
    return f"{100 * value:g} %"


def _plain(value: float, _: float) -> str:
    return f"{value:g}"
