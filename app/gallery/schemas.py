"""The gallery's HTTP schemas."""

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.gallery.labels import Label, LabelChange
from app.kit.ids import ID_PATTERN
from app.kit.times import from_microseconds
from app.problem import Problem
from model.architecture import PARTS

if TYPE_CHECKING:  # clients have these schemas, too, and nothing of the service
    from app.gallery.tables import Camera, Crop
    from app.links import Links

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_MAX_ATTRIBUTE_BYTES = 16_384
_LOST_PLUS = re.compile(r"T\d\d.* \d\d(:?\d\d)?$")


def _in_range(moment: datetime) -> datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(f"must lie between {_EARLIEST.year} and {_LATEST.year} UTC")
    return moment


def _no_number(moment: object) -> object:
    """Refuse numbers, which pydantic takes for seconds since 1970 UTC, and a `+` that a URL turned into a blank."""
    if isinstance(moment, str) and _LOST_PLUS.search(moment):
        raise ValueError("has a blank before its zone: in a URL write + as %2B, such as 2026-05-04T17:30:00%2B02:00")
    if isinstance(moment, int | float) or (
        isinstance(moment, str) and moment.replace(".", "").lstrip("+-").isdecimal()
    ):
        raise ValueError("must be ISO 8601 with a zone, such as 2026-05-04T17:30:00+02:00")
    return moment


def _small_json(attributes: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(attributes, allow_nan=False).encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("must be plain JSON without NaN and infinity") from error
    if size > _MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"must not be larger than {_MAX_ATTRIBUTE_BYTES} bytes, is {size}")
    return attributes


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be an IANA time zone such as Europe/Vienna") from error
    return name


CameraId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
CropId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
Instant = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_range)]
Include = Literal["embedding", "vector", "parts"]
Attributes = Annotated[dict[str, Any], AfterValidator(_small_json)]
TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_zone)]


class ItemMetadata(BaseModel):
    """The metadata of one file; fields that are left out are taken from the request."""

    model_config = ConfigDict(extra="forbid")

    camera_id: CameraId | None = Field(
        None, description="The camera; an unknown one is created", examples=["gate-north"]
    )
    captured_at: Instant | None = Field(
        None, description="The time, with its zone", examples=["2026-05-04T17:30:00+02:00"]
    )
    time_guessed: bool | None = Field(
        None,
        description="true: captured_at is a guess, such as the time of the file; then the same bytes from the same "
        "camera are the same crop, whatever its time",
    )
    track_id: Name | None = Field(None, description="The track, if all crops belong to one")
    person_id: Name | None = Field(None, description="The person, if known")
    attributes: Attributes | None = Field(
        None,
        description="A JSON object, stored and returned unchanged; searches can filter by its values",
        examples=['{"lane": 2}'],
    )


class CropOut(BaseModel):
    """A crop of the gallery."""

    id: str
    camera_id: str
    captured_at: datetime = Field(description="In the zone that it was posted with")
    time_guessed: bool = Field(description="Whether captured_at is a guess, such as the time of the file")
    track_id: str | None
    person_id: str | None
    attributes: dict[str, Any]
    image_url: str = Field(
        description="Where the picture is, on this service; where the service has a key, the link opens without it for "
        "some minutes"
    )
    created_at: datetime = Field(description="When the crop was stored")

    @classmethod
    def of(cls, crop: "Crop", links: "Links") -> "CropOut":
        """The schema of a row."""
        return cls(
            id=crop.id,
            camera_id=crop.camera_id,
            captured_at=from_microseconds(crop.captured_at, crop.utc_offset),
            time_guessed=crop.time_guessed,
            track_id=crop.track_id,
            person_id=crop.person_id,
            attributes=crop.attributes,
            image_url=links.crop_image(crop.id),
            created_at=from_microseconds(crop.created_at),
        )


class EmbeddingOut(BaseModel):
    """An embedding, whole, by part, or both. The whole has norm 1, and the parts are its eight slices.

    The dot product of two embeddings is their similarity. A part's norm is the weight that the model gives it, and the
    square of the norm is the part's share of similarities: 1/8 where all eight count the same.
    """

    vector: list[float] | None = Field(description="2048 numbers")
    parts: dict[str, list[float]] | None = Field(description="256 numbers for each of the eight parts")

    @classmethod
    def of(cls, parts: NDArray[np.float32], vector: bool, by_part: bool) -> "EmbeddingOut":
        """parts: `(8, 256)`."""
        return cls(
            vector=parts.reshape(-1).tolist() if vector else None,
            parts=dict(zip(PARTS, parts.tolist(), strict=True)) if by_part else None,
        )


class EmbedItem(BaseModel):
    """The outcome of one file or box."""

    index: int = Field(description="The file's or box's place in the request, from 0")
    filename: str | None = Field(description="The file's name; of a box, its frame's")
    status: Literal["created", "existing", "updated", "embedded", "failed"] = Field(
        description="created: new in the gallery; existing: it was stored before; updated: it was stored before, and "
        "its labels, or a time that was a guess, were changed, as asked; embedded: not stored, as asked; failed: see "
        "the problem"
    )
    differs: list[Label] = Field(
        [],
        description="Which of the posted labels differ from those of the existing crop, and captured_at where that was "
        "a guess; `update` would change them. Of an updated crop, which were changed",
    )
    crop: CropOut | None = None
    box: tuple[int, int, int, int] | None = Field(
        None, description="The area cut out of the frame: x, y, width, height, in whole pixels and within its edges"
    )
    embedding: EmbeddingOut | None = None
    problem: Problem | None = None


class EmbedAnswer(BaseModel):
    """The outcome of every file or box, in the order in which they were posted."""

    model_id: str
    items: list[EmbedItem]


class LabelsIn(BaseModel):
    """New labels: a field that is left out stays as it is, and null clears it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"person_id": "anna", "attributes": {"lane": 2}}}
    )

    person_id: Name | None = Field(None, description="The person")
    track_id: Name | None = Field(None, description="The track")
    attributes: Attributes | None = Field(None, description="All attributes: they replace the present ones")

    def change(self) -> LabelChange:
        """The labels that were given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ChangedCrops(BaseModel):
    """The outcome of a change of labels."""

    matched: int = Field(description="How many crops pass all filters")
    changed: int = Field(description="How many of them had other labels")
    dry_run: bool = Field(description="Whether nothing was changed: the crops were only counted")


class DeletedCrops(BaseModel):
    """The outcome of a deletion of crops."""

    matched: int = Field(description="How many crops pass all filters")
    deleted: int = Field(description="How many were deleted")
    dry_run: bool = Field(description="Whether nothing was deleted: the crops were only counted")


class CropPage(BaseModel):
    """A page of crops, latest first."""

    items: list[CropOut]
    next_cursor: str | None = Field(description="Give this as `cursor` to get the next page; null on the last")


class CameraIn(BaseModel):
    """The description of a camera."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "North gate", "place": "Gate 3, facing in", "time_zone": "Europe/Vienna"}
        },
    )

    name: Name
    place: Name | None = None
    time_zone: TimeZone | None = Field(
        None,
        description="The time zone of local times on contact sheets; by default that of the crops as posted",
    )


class CameraOut(BaseModel):
    """A camera."""

    id: str
    name: str
    place: str | None
    time_zone: str | None
    crops: int = Field(description="How many crops of the gallery come from it")
    created_at: datetime

    @classmethod
    def of(cls, camera: "Camera", crops: int) -> "CameraOut":
        """The schema of a row."""
        return cls(
            id=camera.id,
            name=camera.name,
            place=camera.place,
            time_zone=camera.time_zone,
            crops=crops,
            created_at=from_microseconds(camera.created_at),
        )
