"""The metadata of a crop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.gallery.repository import Identity
from app.kit.times import to_microseconds


@dataclass(frozen=True)
class CropMetadata:
    """A crop's metadata as it was posted; `captured_at` is an aware datetime, a guess if `time_guessed`."""

    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    time_guessed: bool = False

    def identity(self, sha256: str) -> Identity:
        """The same bytes from the same camera at the same time, where it is known, are the same crop."""
        return self.camera_id, None if self.time_guessed else to_microseconds(self.captured_at), sha256
