"""Crops of tests to upload."""

from datetime import UTC, datetime, timedelta

import passerby
from tests.app.running import jpeg

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def crops(count: int) -> list[passerby.NewCrop]:
    """Crops of one camera, a minute and a person each."""
    return [
        passerby.NewCrop(jpeg(seed), "gate", NOON + timedelta(minutes=seed), person_id=f"p{seed}")
        for seed in range(count)
    ]
