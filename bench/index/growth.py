"""Plots latency, recall and memory over the size of the gallery."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from app.index.faiss_index import Tuning

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)


@dataclass(frozen=True)
class Point:
    """The figures of one gallery: p50 in milliseconds, memory in MB."""

    crops: int
    p50: float
    recall: float
    memory: float


def draw_growth(points: Sequence[Point], path: Path) -> None:
    """Three panels over the number of crops, with a line each for galleries without and with a segment."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    limit = Tuning().exact_limit
    kinds = (
        ("write buffer only", "#b8551f", [point for point in points if point.crops <= limit]),
        ("with a segment", "#1f5fa8", [point for point in points if point.crops > limit]),
    )
    for panel, title, value in (
        (panels[0], "one query, p50, milliseconds", attrgetter("p50")),
        (panels[1], "recall@10", attrgetter("recall")),
        (panels[2], "memory, MB", attrgetter("memory")),
    ):
        for label, color, line in kinds:
            panel.plot(
                [point.crops for point in line], [value(point) for point in line], "o-", color=color, label=label
            )
            for point in line:
                panel.annotate(
                    f"{value(point):.3g}" if value(point) > 1 else f"{value(point):.4g}",
                    (point.crops, value(point)),
                    textcoords="offset points", xytext=(0, 7), ha="center", size=8,
                )  # fmt: skip
        panel.axvline(limit, color="#999999", linestyle=":")
        panel.set_xscale("log")
        panel.set_title(title, size=10)
        panel.set_xlabel("crops in the gallery")
        panel.margins(x=0.12, y=0.25)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0.95, 1.004)
    panels[2].set_ylim(bottom=0)
    panels[0].legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)
