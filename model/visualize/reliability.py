"""The reliability diagram: predicted probabilities against observed shares of same-person pairs."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.calibrate import CalibrationResult
from model.figures import percent
from model.visualize.style import FAINT, INK, LINES, RIGHT, WRONG, add_legend, figure, save_figure, set_title

_HISTOGRAM_BINS = 60


def draw_reliability(result: CalibrationResult, path: Path) -> None:
    """Write the diagram of the evaluated half as .svg, .png or .pdf. Raises OSError."""
    save_figure(reliability_figure(result), path)


def reliability_figure(result: CalibrationResult) -> Figure:
    """Observed shares against predicted probabilities; next to it, histograms of similarities and the fitted map."""
    chart, (left, right) = figure(10.5, 5, columns=2)
    _reliability(left, result)
    _similarities(right, result)
    return chart


def _reliability(axes: Axes, result: CalibrationResult) -> None:
    bins, calibration = result.balanced, result.calibration
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), label="perfect")
    # The bootstrap interval can exclude the observed share; error bars must not be negative.
    error_bars = [np.maximum(bins.observed - bins.low, 0), np.maximum(bins.high - bins.observed, 0)]
    axes.errorbar(
        bins.predicted, bins.observed, error_bars, fmt="o", color=LINES[0], markersize=6, elinewidth=1.4, capsize=3,
        label="measured, with 95 % interval",
    )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="observed share")
    error = percent(bins.expected_calibration_error, 2)
    set_title(axes, f"Reliability on {calibration.judged_identities} other identities: error {error}")
    add_legend(axes, below=True)


def _similarities(axes: Axes, result: CalibrationResult) -> None:
    pairs, calibration = result.pairs, result.calibration
    edges = np.linspace(min(0.0, pairs.similarities.min()), max(1.0, pairs.similarities.max()), _HISTOGRAM_BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for same, colour, label in ((False, WRONG, "different-person pairs"), (True, RIGHT, "same-person pairs")):
        counts, _ = np.histogram(pairs.similarities[pairs.same == same], edges)
        share = counts / counts.max()
        axes.fill_between(middles, share, step="mid", color=colour, alpha=0.25, linewidth=0, label=label)
    grid = np.linspace(edges[0], edges[-1], 400)
    axes.plot(grid, calibration.probability(grid), color=INK, label="probability at prior 1/2")
    axes.plot(grid, calibration.probability(grid, 0.01), color=INK, linewidth=1.2, linestyle=(0, (5, 2)),
              label="probability at prior 1/100")  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-0.02, 1.02), xlabel="similarity", ylabel="probability")
    set_title(axes, "From similarity to probability")
    add_legend(axes, below=True)
