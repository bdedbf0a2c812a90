"""How latency, recall and memory grow with the gallery, as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)


@dataclass(frozen=True)
class Point:
    """What was measured of one gallery: p50 in milliseconds, memory in MB."""

    crops: int
    p50: float
    recall: float
    memory: float


def draw_growth(points: Sequence[Point], path: Path) -> None:
    """Three panels over the number of crops."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    crops = [point.crops for point in points]
    for panel, title, values in (
        (panels[0], "one query, p50, milliseconds", [point.p50 for point in points]),
        (panels[1], "recall@10", [point.recall for point in points]),
        (panels[2], "memory, MB", [point.memory for point in points]),
    ):
        panel.plot(crops, values, marker="o", color="#1f5fa8")
        for size, value in zip(crops, values, strict=True):
            panel.annotate(
                f"{value:.4g}", (size, value), textcoords="offset points", xytext=(0, 7), ha="center", size=8
            )
        panel.set_xscale("log")
        panel.set_title(title, size=10)
        panel.set_xlabel("crops in the gallery")
        panel.margins(x=0.12, y=0.25)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0.95, 1.004)
    panels[2].set_ylim(bottom=0)
    figure.savefig(path, dpi=110)
