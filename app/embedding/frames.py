"""Cuts the boxes of people out of a frame: each becomes the file of a crop like any other."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from model.decoding import NO_LOCK, PictureError, PictureLimits, whole_picture

JPEG_QUALITY = 95
"""With full colour resolution (4:4:4), the file's embedding is nearly that of the frame's own pixels."""

_MAX_JPEG_SIDE = 65_500

PixelBox = tuple[int, int, int, int]
"""x and y of the upper left corner, width, height; in whole pixels of an upright frame."""


@dataclass(frozen=True)
class Box:
    """The box of a person: upper left corner and size in pixels of an upright frame.

    It may be fractional and may extend beyond the frame, as boxes of detectors do.
    """

    x: float
    y: float
    width: float
    height: float

    def within(self, frame: tuple[int, int], min_side: int) -> PixelBox:
        """The box in whole pixels of a frame (width, height), rounded and clipped to the frame.

        Raises PictureError where it lies outside the frame, or a side has less than `min_side` pixels.
        """
        left, right = _borders(self.x, self.width, frame[0])
        top, bottom = _borders(self.y, self.height, frame[1])
        width, height = right - left, bottom - top
        if min(width, height) >= min_side:
            return left, top, width, height
        described = f"{self} of a frame of {frame[0]} x {frame[1]} pixels"
        hint = "a box is [x, y, width, height] in pixels of the upright frame"
        if not (_meets(self.x, self.width, frame[0]) and _meets(self.y, self.height, frame[1])):
            raise PictureError("outside-frame", f"{described} shows nothing of it: {hint}")
        raise PictureError(
            "too-small",
            f"{described} shows {max(width, 0)} x {max(height, 0)} of it, each side needs {min_side}: {hint}",
        )

    def __str__(self) -> str:
        return f"the box [{self.x:g}, {self.y:g}, {self.width:g}, {self.height:g}]"


@dataclass(frozen=True, eq=False)
class CropFile:
    """The file of a crop: as it was posted, or the JPEG of a box. box: the pixels of the frame that it shows."""

    content: bytes
    box: PixelBox | None = None


def cut(
    frame: bytes,
    boxes: Sequence[Box],
    limits: PictureLimits,
    large_picture_lock: AbstractContextManager[object] = NO_LOCK,
) -> list[CropFile | PictureError]:
    """Decode a frame once, at full size, and cut the boxes out; an unusable box fails alone.

    The same frame and box always give the same file, whichever model embeds it. `large_picture_lock` is held while a
    frame of more than LARGE_PIXELS is in memory, see `decode`. Raises PictureError where the frame itself cannot be
    used, or where all boxes together have more pixels than one picture may have.
    """
    with whole_picture(frame, limits, large_picture_lock) as picture:
        areas = [_area(box, picture.size, limits) for box in boxes]
        _check_total_pixels([area for area in areas if not isinstance(area, PictureError)], limits)
        return [area if isinstance(area, PictureError) else _cut(picture, area) for area in areas]


def _area(box: Box, frame: tuple[int, int], limits: PictureLimits) -> PixelBox | PictureError:
    try:
        area = box.within(frame, limits.min_side)
    except PictureError as error:
        return error
    if max(area[2:]) > _MAX_JPEG_SIDE:
        return PictureError(
            "too-many-pixels", f"{box} has a side of more than {_MAX_JPEG_SIDE:,} pixels: cut it smaller"
        )
    return area


def _check_total_pixels(areas: Sequence[PixelBox], limits: PictureLimits) -> None:
    pixels = sum(width * height for _, _, width, height in areas)
    if pixels > limits.max_pixels:
        raise PictureError(
            "too-many-pixels",
            f"the {len(areas)} boxes have {pixels:,} pixels together, {limits.max_pixels:,} are allowed: "
            "post fewer of them at once",
        )


def _cut(frame: Image.Image, area: PixelBox) -> CropFile:
    x, y, width, height = area
    file = BytesIO()
    picture = frame.crop((x, y, x + width, y + height))
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4", comment=b"")  # without the frame's comment
    return CropFile(file.getvalue(), area)


def _borders(start: float, length: float, most: int) -> tuple[int, int]:
    """The ends of an interval, rounded and clipped to 0 and `most`."""
    begin, end = (math.floor(min(max(edge, 0), most) + 0.5) for edge in (start, start + length))
    return begin, end


def _meets(start: float, length: float, most: int) -> bool:
    return start < most and start + length > 0
