"""The metadata of a crop."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.gallery.labels import CaptureTime, LabelChange
from app.gallery.repository import Identity
from app.kit.times import to_microseconds, utc_offset_seconds


@dataclass(frozen=True)
class CropMetadata:
    """A crop's metadata as it was posted; `captured_at` is an aware datetime, a guess if `time_guessed`.

    Labels that are None were not given.
    """

    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] | None = None
    time_guessed: bool = False

    @property
    def labels(self) -> LabelChange:
        """The labels that were given, and the time if it is no guess."""
        given = {
            "person_id": self.person_id,
            "track_id": self.track_id,
            "attributes": self.attributes,
            "captured_at": None if self.time_guessed else self.capture_time,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def capture_time(self) -> CaptureTime:
        """The time as it is stored."""
        return CaptureTime(to_microseconds(self.captured_at), utc_offset_seconds(self.captured_at), self.time_guessed)

    def identity(self, sha256: str) -> Identity:
        """The same bytes from the same camera at the same time, where it is known, are the same crop."""
        return self.camera_id, None if self.time_guessed else to_microseconds(self.captured_at), sha256
