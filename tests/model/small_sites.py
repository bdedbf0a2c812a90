"""Sites of a few tiny crops, with any cameras, for tests of splits and of what commands say of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

Seen = Iterable[tuple[int, int | None, int]]
"""(person, camera or None, number of crops)."""


def one_crop_a_camera(persons: int, cameras: tuple[int, ...] = (1, 2)) -> list[tuple[int, int | None, int]]:
    """Each person on one crop by each camera, as in VIPeR."""
    return [(pid, camera, 1) for pid in range(1, persons + 1) for camera in cameras]


def write_site(folder: Path, seen: Seen, pictures: bool = True) -> Path:
    """A folder for each person; each person has a colour. Without pictures, the files hold a text."""
    for pid, camera, crops in seen:
        rng = np.random.default_rng(pid)
        colour = rng.integers(0, 200, 3)
        for number in range(crops):
            by = "" if camera is None else f"_c{camera}"
            path = folder / f"{pid:04}" / f"{pid:04}{by}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if pictures:
                noise = np.random.default_rng((pid, camera or 0, number)).integers(0, 50, (32, 16, 3))
                Image.fromarray((colour + noise).astype(np.uint8)).resize((32, 64)).save(path)
            else:
                path.write_text("no picture")
    return folder
