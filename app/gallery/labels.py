"""What clients assert of crops and may change: the person, the track, the attributes, and a time that was a guess."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from app.gallery.attributes import lines_of

if TYPE_CHECKING:  # clients have these names, too, and nothing of the service
    from app.gallery.tables import Crop

Label = Literal["person_id", "track_id", "attributes", "captured_at"]

LabelChange = Mapping[str, Any]
"""New values of `person_id`, `track_id` or `attributes` by name; None clears a label, others stay as they are.

`captured_at`, a CaptureTime, replaces a guess: crops of which two times are known are two crops.
"""

_COMPARED: dict[Label, str] = {
    "person_id": "person_id",
    "track_id": "track_id",
    "attributes": "attribute_lines",
    "captured_at": "time_guessed",
}
"""The column of each label that says whether two crops have the same."""


@dataclass(frozen=True)
class CaptureTime:
    """When a crop was captured: microseconds since 1970 in UTC, seconds of the zone's offset, whether it is a guess."""

    captured_at: int
    utc_offset: int
    time_guessed: bool


def columns_of(change: LabelChange) -> dict[str, Any]:
    """The columns of a crop that a change sets, with their values."""
    columns = dict(change)
    if "attributes" in change:
        columns["attributes"] = dict(change["attributes"] or {})
        columns["attribute_lines"] = lines_of(columns["attributes"])
    if "captured_at" in change:
        columns |= asdict(change["captured_at"])
    return columns


def compared_columns(change: LabelChange) -> dict[str, Any]:
    """The columns in which a crop with these labels equals the change."""
    columns = columns_of(change)
    return {column: columns[column] for name, column in _COMPARED.items() if name in change}


def labels_of(crop: "Crop") -> dict[str, Any]:
    """The labels of a crop, as the change that sets them."""
    return {
        "person_id": crop.person_id,
        "track_id": crop.track_id,
        "attributes": crop.attributes,
        "captured_at": CaptureTime(crop.captured_at, crop.utc_offset, crop.time_guessed),
    }


def differing(labels: LabelChange, change: LabelChange) -> tuple[Label, ...]:
    """The names of the labels that a change would change."""
    present, wanted = compared_columns(labels), compared_columns(change)
    return tuple(name for name, column in _COMPARED.items() if name in change and present[column] != wanted[column])
