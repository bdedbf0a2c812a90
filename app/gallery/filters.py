"""Which crops a list or a search considers, and which a change or a deletion is for."""

from pydantic import BaseModel, Field

from app.gallery.attributes import pairs_of
from app.gallery.schemas import Attributes, CameraId, CropId, Instant, Name
from app.gallery.selection import Selection
from app.index.port import Filter
from app.kit.fields import Several
from app.kit.times import to_microseconds

CAMERA_FIELDS = ("camera_ids", "exclude_camera_ids")
"""The fields of `CropFilter` that name cameras."""


class CropFilter(BaseModel):
    """The filters of lists and searches, as they are given, stored and returned; null and empty ones do not filter."""

    camera_ids: Several[CameraId] = Field([], description="Only crops of these cameras")
    exclude_camera_ids: Several[CameraId] = Field([], description="No crops of these cameras")
    captured_from: Instant | None = Field(None, description="Only crops captured then or later")
    captured_to: Instant | None = Field(None, description="Only crops captured before then")
    person_id: Name | None = Field(None, description="Only crops of this person")
    track_id: Name | None = Field(None, description="Only crops of this track")
    attributes: Attributes = Field(
        {}, description='Only crops with these attributes and values: a JSON object, such as {"colour": "red"}'
    )

    def to_index(self) -> Filter:
        """The same filter as the index and the database's conditions take it."""
        return Filter(
            camera_ids=frozenset(self.camera_ids),
            exclude_camera_ids=frozenset(self.exclude_camera_ids),
            captured_from=None if self.captured_from is None else to_microseconds(self.captured_from),
            captured_to=None if self.captured_to is None else to_microseconds(self.captured_to),
            person_id=self.person_id,
            track_id=self.track_id,
            attributes=pairs_of(self.attributes),
        )


class CropSelection(CropFilter):
    """The crops that a change or a deletion is for: those that pass all filters and, if ids are given, have one.

    A blank value is an error here: where it is dropped, more crops would be changed or deleted than the client means.
    """

    camera_ids: list[CameraId] = Field([], description="Only crops of these cameras")
    exclude_camera_ids: list[CameraId] = Field([], description="No crops of these cameras")
    crop_ids: list[CropId] = Field([], description="Only these crops")

    def selection(self) -> Selection:
        """The same selection as the database's conditions take it."""
        return Selection(self.to_index(), frozenset(self.crop_ids))
