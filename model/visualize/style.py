"""The style of all figures: colours, matplotlib settings, output as files or `data:` URIs."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.files import write_atomically

INK, FAINT, RULE, PAPER = "#1c222b", "#667080", "#e3e7ec", "#ffffff"
RIGHT, WRONG, JUNK_GREY = "#15803d", "#c2261d", "#8a93a0"
LINES = ("#1f6feb", "#d9700a", "#15803d", "#8b3fd1", "#b3256b", "#0f8a8a")

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#b8c0cb",
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "passerby",  # reproducible files
}


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` by `height` inches with `columns` axes side by side."""
    with style.context(_STYLE):
        chart = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
        axes = chart.subplots(1, columns, squeeze=False)
    return chart, list(axes[0])


def set_title(axes: Axes, title: str) -> None:
    """Set a left-aligned title."""
    axes.set_title(title, loc="left", fontweight="bold")


def add_legend(axes: Axes, below: bool = False) -> None:
    """Add a legend inside the axes or below them."""
    if below:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize=9)
    else:
        axes.legend(loc="best", frameon=False, fontsize=9)


def save_figure(chart: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, atomically. Raises OSError."""
    write_atomically(path, _content(chart, path.suffix.removeprefix(".")))


def svg_uri(chart: Figure) -> str:
    """A figure as a `data:` URI for an HTML page."""
    return "data:image/svg+xml;base64," + base64.b64encode(_content(chart, "svg")).decode()


def _content(chart: Figure, file_format: str) -> bytes:
    content = BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format)  # reproducible files
    with style.context(_STYLE):
        chart.savefig(content, format=file_format, dpi=160, metadata=undated)
    return content.getvalue()
