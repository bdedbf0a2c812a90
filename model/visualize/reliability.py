"""The reliability diagram: predicted probabilities against observed shares of pairs of one person."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.calibrate import CalibrationResult
from model.visualize.style import FAINT, INK, LINES, RIGHT, WRONG, explained, figure, headed, save_figure

_HISTOGRAM_BINS = 60


def draw_reliability(result: CalibrationResult, path: Path) -> None:
    """Write the diagram of the evaluated half as .svg, .png or .pdf."""
    save_figure(reliability_figure(result), path)


def reliability_figure(result: CalibrationResult) -> Figure:
    """Shares against probabilities; next to it, histograms of similarities and the map to probabilities."""
    drawn, (left, right) = figure(10.5, 5, columns=2)
    _reliability(left, result)
    _similarities(right, result)
    return drawn


def _reliability(axes: Axes, result: CalibrationResult) -> None:
    bins, calibration = result.balanced, result.calibration
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), label="perfect")
    # The bootstrap interval rarely excludes the observed share; error bars must not be negative.
    error_bars = [np.maximum(bins.observed - bins.low, 0), np.maximum(bins.high - bins.observed, 0)]
    axes.errorbar(
        bins.predicted, bins.observed, error_bars, fmt="o", color=LINES[0], markersize=6, elinewidth=1.4, capsize=3,
        label="measured, with 95 % interval",
    )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability given", ylabel="share that shows one person")
    error = f"{100 * bins.expected_calibration_error:.2f} %"
    headed(axes, f"Reliability on {calibration.judged_identities} other identities: error {error}")
    explained(axes, below=True)


def _similarities(axes: Axes, result: CalibrationResult) -> None:
    pairs, calibration = result.pairs, result.calibration
    edges = np.linspace(min(0.0, pairs.similarities.min()), max(1.0, pairs.similarities.max()), _HISTOGRAM_BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for same, colour, label in ((False, WRONG, "pairs of two persons"), (True, RIGHT, "pairs of one person")):
        counts, _ = np.histogram(pairs.similarities[pairs.same == same], edges)
        share = counts / counts.max()
        axes.fill_between(middles, share, step="mid", color=colour, alpha=0.25, linewidth=0, label=label)
    along = np.linspace(edges[0], edges[-1], 400)
    axes.plot(along, calibration.probability(along), color=INK, label="probability if 1 pair in 2 is of one person")
    axes.plot(along, calibration.probability(along, 0.01), color=INK, linewidth=1.2, linestyle=(0, (5, 2)),
              label="probability if 1 pair in 100 is")  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-0.02, 1.02), xlabel="similarity", ylabel="probability")
    headed(axes, "From similarity to probability")
    explained(axes, below=True)
