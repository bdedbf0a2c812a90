"""What is told of a crop, beside its picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.gallery.repository import Identity
from app.kit.times import to_microseconds


@dataclass(frozen=True)
class CropMetadata:
    """What a camera pipeline tells of a crop; `captured_at` is aware."""

    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def identity(self, sha256: str) -> Identity:
        """The same bytes by the same camera at the same time are the same crop."""
        return self.camera_id, to_microseconds(self.captured_at), sha256
