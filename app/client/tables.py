"""Tables of crops on the console. Their lines are never folded, so that ids can be copied."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from passerby import CropOut

WIDE = 100  # characters; a narrower terminal gets a denser table

Column = tuple[str, Sequence[RenderableType]]
"""A heading, and the cells below it."""

_UNLIMITED = 10_000  # characters


def print_table(columns: Sequence[Column], console: Console) -> None:
    """Print a table as wide as its content; a line that is longer than the terminal goes on."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, int(console.width >= WIDE), 0, 0))
    for name, _ in columns:
        table.add_column(name, no_wrap=True, overflow="ignore")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    table.width = Measurement.get(console, console.options.update(max_width=_UNLIMITED), table).maximum
    console.print(table, crop=False)


def crop_columns(crops: Sequence[CropOut]) -> list[Column]:
    """Id, camera and time of crops; person and track where one is known."""
    zones = {crop.captured_at.tzname() for crop in crops}
    zone = f" ({zones.pop()})" if len(zones) == 1 else ""
    columns: list[Column] = [
        ("crop", [crop.id for crop in crops]),
        ("camera", [crop.camera_id for crop in crops]),
        (f"captured{zone}", [_local_time(crop, with_zone=not zone) for crop in crops]),
    ]
    for name, values in (("person", [crop.person_id for crop in crops]), ("track", [crop.track_id for crop in crops])):
        if any(values):
            columns.append((name, [value or "" for value in values]))
    return columns


def _local_time(crop: CropOut, with_zone: bool) -> str:
    """The time of capture in the zone of the camera, as on the contact sheet."""
    text = f"{crop.captured_at:%Y-%m-%d %H:%M:%S}"
    return f"{text} {crop.captured_at.tzname()}" if with_zone else text
