"""Parses form and query fields: filters, and the metadata of each crop of a `POST /embed`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from app.embedding.frames import Box
from app.errors import InvalidRequest
from app.gallery.attributes import pairs_of
from app.gallery.metadata import CropMetadata
from app.gallery.schemas import Attributes, ItemMetadata
from app.index.port import Filter
from app.kit.names import did_you_mean, shown
from app.kit.times import to_microseconds

_OBJECTS = TypeAdapter(list[dict[str, Any]])
_ATTRIBUTES = TypeAdapter(Attributes)
_BOXES = TypeAdapter(list[tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]])


@dataclass(frozen=True)
class EmbedForm:
    """A request's shared metadata, and what `items` (one JSON object a crop) overrides for single crops."""

    shared: ItemMetadata
    items: Sequence[dict[str, Any]]

    def metadata(self, count: int) -> list[CropMetadata | InvalidRequest]:
        """The metadata of each of `count` crops, or what is wrong with it.

        Raises InvalidRequest where the shared metadata is wrong and there are no `items`.
        """
        if not self.items:
            return [_complete(self.shared)] * count
        return [self._of_item(index) for index in range(count)]

    def _of_item(self, index: int) -> CropMetadata | InvalidRequest:
        try:
            item = _parse_item(self.items[index], index)
            return _complete(self.shared.model_copy(update=item.model_dump(exclude_none=True)))
        except InvalidRequest as error:
            return error


def crop_filter(
    camera_ids: Sequence[str] | None,
    exclude_camera_ids: Sequence[str] | None,
    captured_from: datetime | None,
    captured_to: datetime | None,
    person_id: str | None,
    track_id: str | None,
    attributes: Mapping[str, Any] | None,
) -> Filter:
    """The filters that listing and searching share; None does not filter."""
    return Filter(
        camera_ids=frozenset(camera_ids or ()),
        exclude_camera_ids=frozenset(exclude_camera_ids or ()),
        captured_from=None if captured_from is None else to_microseconds(captured_from),
        captured_to=None if captured_to is None else to_microseconds(captured_to),
        person_id=person_id,
        track_id=track_id,
        attributes=pairs_of(attributes or {}),
    )


def parse_attributes(text: str | None) -> dict[str, Any] | None:
    """The field `attributes` of a new crop or of a filter. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        return _ATTRIBUTES.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(
            f"attributes is no JSON object that a crop can have: {first_fault(error)}", "attributes"
        ) from error


def parse_boxes(text: str, max_boxes: int) -> list[Box]:
    """The form field `boxes`, 1 to `max_boxes` of them. Raises InvalidRequest."""
    try:
        boxes = [Box(*numbers) for numbers in _BOXES.validate_json(text, strict=True)]
    except ValidationError as error:
        raise InvalidRequest(
            f"boxes is no JSON array of [x, y, width, height], numbers of pixels: {first_fault(error)}", "boxes"
        ) from error
    if not 1 <= len(boxes) <= max_boxes:
        raise InvalidRequest(f"boxes has {len(boxes)} boxes: give 1 to {max_boxes} at once", "boxes")
    return boxes


def parse_items(text: str | None, crops: int) -> list[dict[str, Any]]:
    """The form field `items`, one object for each crop; empty where it is not given. Raises InvalidRequest."""
    if text is None:
        return []
    try:
        items = _OBJECTS.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"items is no JSON array of objects: {first_fault(error)}", "items") from error
    if len(items) != crops:
        raise InvalidRequest(f"items has {len(items)} objects for {crops} files or boxes; give one for each", "items")
    return items


def _complete(metadata: ItemMetadata) -> CropMetadata:
    if metadata.camera_id is None:
        raise InvalidRequest("camera_id is missing: say which camera the crop comes from", "camera_id")
    if metadata.captured_at is None:
        raise InvalidRequest(
            "captured_at is missing: say when the crop was captured, such as 2026-05-04T17:30:00+02:00",
            "captured_at",
        )
    return CropMetadata(
        metadata.camera_id, metadata.captured_at, metadata.track_id, metadata.person_id, metadata.attributes or {}
    )


def _parse_item(item: dict[str, Any], index: int) -> ItemMetadata:
    known = ItemMetadata.model_fields
    for name in item:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InvalidRequest(f"items[{index}]: there is no field {shown(name)}{hint}", f"items[{index}]")
    try:
        return ItemMetadata.model_validate_json(json.dumps(item))
    except ValidationError as error:
        raise InvalidRequest(f"items[{index}]: {first_fault(error)}", f"items[{index}]") from error


def first_fault(error: ValidationError) -> str:
    """The first validation error, with its location."""
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg']}" if where else fault["msg"]
