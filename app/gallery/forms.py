"""The form of a `POST /embed`: the metadata of each crop, and the boxes of a frame. A bad item or box fails alone."""

import json
from typing import Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from app.embedding.frames import Box
from app.errors import InvalidRequest
from app.gallery.metadata import CropMetadata
from app.gallery.schemas import Include, ItemMetadata
from app.kit.fields import Several
from app.kit.names import did_you_mean, shown

_LIST = TypeAdapter(list[Any])
_BOX = TypeAdapter(tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat])


class EmbedForm(ItemMetadata):
    """The fields of a `POST /embed` but its pictures: the metadata of all crops, and what `items` says of each."""

    items: str | None = Field(
        None,
        description="A JSON array with an object for each file or box, in order: its camera_id, captured_at, "
        "time_guessed, track_id, person_id and attributes override the request's for that crop",
    )
    store: bool = Field(True, description="false: embed only, store nothing; then no metadata is needed")
    update: bool = Field(
        False,
        description="true: where a crop is stored already and its person_id, track_id or attributes differ from those "
        "that you post, or its time was a guess and yours is none, they are changed",
    )
    include: Several[Include] = Field([], description="embedding: return embeddings; or only their vector or parts")

    def metadata(self, count: int) -> list[CropMetadata | InvalidRequest]:
        """The metadata of each of `count` crops, or what is wrong with it; empty if none is stored.

        Raises InvalidRequest where `items` is wrong as a whole, and where there are none and the shared metadata is.
        """
        items = _parse_items(self.items, count)
        if not self.store or not count:
            return []
        if not items:
            return [_complete(self)] * count
        return [self._of_item(item, index) for index, item in enumerate(items)]

    def _of_item(self, item: Any, index: int) -> CropMetadata | InvalidRequest:
        try:
            own = _parse_item(item, index)
            return _complete(self.model_copy(update=own.model_dump(exclude_none=True)))
        except InvalidRequest as error:
            return error


def parse_boxes(text: str, max_boxes: int) -> list[Box | InvalidRequest]:
    """The form field `boxes`: each box, or what is wrong with it. Raises InvalidRequest where it is no such list."""
    try:
        boxes = _LIST.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(
            f"boxes is no JSON array of [x, y, width, height], numbers of pixels: {_first_fault(error)}", "boxes"
        ) from error
    if boxes and all(isinstance(box, int | float) for box in boxes):
        raise InvalidRequest("boxes is one box: write an array of boxes, such as [[x, y, width, height]]", "boxes")
    if len(boxes) > max_boxes:
        raise InvalidRequest(f"boxes has {len(boxes)} boxes: give at most {max_boxes} at once", "boxes")
    return [_parse_box(box, index) for index, box in enumerate(boxes)]


def _parse_box(box: Any, index: int) -> Box | InvalidRequest:
    try:
        return Box(*_BOX.validate_json(json.dumps(box), strict=True))
    except ValidationError as error:
        where = f"boxes[{index}]"
        return InvalidRequest(
            f"{where} is no [x, y, width, height], four finite numbers of pixels: {_first_fault(error)}", where
        )


def _parse_items(text: str | None, crops: int) -> list[Any]:
    """The form field `items`, one value for each crop; empty where it is not given. Raises InvalidRequest."""
    if text is None:
        return []
    try:
        items = _LIST.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"items is no JSON array of objects: {_first_fault(error)}", "items") from error
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
        metadata.camera_id,
        metadata.captured_at,
        metadata.track_id,
        metadata.person_id,
        metadata.attributes,
        time_guessed=metadata.time_guessed or False,
    )


def _parse_item(item: Any, index: int) -> ItemMetadata:
    if not isinstance(item, dict):
        raise InvalidRequest(f"items[{index}] is no JSON object", f"items[{index}]")
    known = ItemMetadata.model_fields
    for name in item:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InvalidRequest(f"items[{index}]: there is no field {shown(name)}{hint}", f"items[{index}]")
    try:
        return ItemMetadata.model_validate_json(json.dumps(item))
    except ValidationError as error:
        raise InvalidRequest(f"items[{index}]: {_first_fault(error)}", f"items[{index}]") from error


def _first_fault(error: ValidationError) -> str:
    """The first validation error, with its location."""
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg']}" if where else fault["msg"]
