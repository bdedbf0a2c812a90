"""The fields that requests have in common, and how their values are written in forms and queries."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from app.gallery.schemas import Include

Json = Mapping[str, Any] | str
"""A JSON object, or its text."""


class CropFilters(TypedDict, total=False):
    """Which crops a list or a search considers, as `CropFilter` of the service; what is left out does not filter."""

    camera_ids: Sequence[str]
    exclude_camera_ids: Sequence[str]
    captured_from: datetime | None
    captured_to: datetime | None
    person_id: str | None
    track_id: str | None
    attributes: Json


class CropSelection(CropFilters, total=False):
    """Which crops a change or a deletion is for: those that pass all filters and, where ids are given, have one.

    An empty list is refused: as no filter, it would select more crops than it says.
    """

    crop_ids: Sequence[str]


class Labels(TypedDict, total=False):
    """New labels of crops: what is left out stays as it is, None clears it."""

    person_id: str | None
    track_id: str | None
    attributes: Mapping[str, Any] | None


class SearchOptions(CropFilters, total=False):
    """The filters, weights and limits of a search, as `SearchParameters` of the service."""

    min_similarity: float | None
    top_k: int
    part_weights: Mapping[str, float] | str
    consistency: Literal["eventual", "session"]


class EmbedOptions(TypedDict, total=False):
    """What is known of all crops of a request, and `items`: of each; whether they are stored, what is returned."""

    camera_id: str | None
    captured_at: datetime | None
    time_guessed: bool
    track_id: str | None
    person_id: str | None
    attributes: Json
    items: Sequence[Mapping[str, Any]]
    store: bool
    update: bool
    include: Sequence[Include]


def encoded(fields: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Form or query fields by name; those without a value are left out."""
    return {name: _text(value) for name, value in fields.items() if value is not None and value != [] and value != ()}


def encoded_selection(selection: CropSelection) -> dict[str, str | list[str]]:
    """Query fields by name; an empty list is a blank value, which the service refuses."""
    return encoded({name: [""] if value in ([], ()) else value for name, value in selection.items()})


def json_text(value: Any) -> str:
    """The text of a JSON value that may hold times."""
    return json.dumps(value, default=_iso)


def _text(value: Any) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json_text(value)
    if isinstance(value, Sequence):
        return [str(one) for one in value]
    return _iso(value) if isinstance(value, datetime) else str(value)


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be written as JSON")
