"""The pictures of a `POST /embed`: files, or a frame with boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fastapi import UploadFile

from app.embedding.frames import Box, CropFile
from app.embedding.service import EmbeddingService
from app.errors import InvalidRequest
from app.gallery.forms import parse_boxes
from model.decoding import PictureError

PostedCrop = CropFile | PictureError | InvalidRequest
"""The file of a crop, or why there is none."""


class Posted(Protocol):
    """The pictures of a request; `names`: for each crop the name of the file that shows it."""

    @property
    def names(self) -> Sequence[str | None]: ...

    async def crops(self, embedding: EmbeddingService) -> Sequence[PostedCrop]:
        """The file of each crop. Raises PictureError where the frame cannot be used; QueueFull, QueueClosed."""


@dataclass(frozen=True)
class PostedFiles:
    """Crops as files. See `Posted`."""

    contents: Sequence[bytes]
    names: Sequence[str | None]

    async def crops(self, embedding: EmbeddingService) -> Sequence[PostedCrop]:
        return [CropFile(content) for content in self.contents]


@dataclass(frozen=True)
class PostedFrame:
    """A frame with boxes, any number of them; one that cannot be read is an error. See `Posted`."""

    frame: bytes
    name: str | None
    boxes: Sequence[Box | InvalidRequest]

    @property
    def names(self) -> Sequence[str | None]:
        return [self.name] * len(self.boxes)

    async def crops(self, embedding: EmbeddingService) -> Sequence[PostedCrop]:
        boxes = [box for box in self.boxes if isinstance(box, Box)]
        cut = iter(await embedding.cut(self.frame, boxes) if boxes else ())
        return [next(cut) if isinstance(box, Box) else box for box in self.boxes]


async def read_posted(
    files: Sequence[UploadFile] | None, frame: UploadFile | None, boxes: str | None, max_boxes: int
) -> Posted:
    """The form fields `files`, or `frame` and `boxes`. Raises InvalidRequest unless exactly one of the two is given."""
    if bool(files) == (frame is not None or boxes is not None):
        raise InvalidRequest("give either files, or frame and boxes: which people are to be embedded?", "files")
    if files:
        return PostedFiles([await file.read() for file in files], [file.filename for file in files])
    if frame is None:
        raise InvalidRequest("frame is missing: post the picture that the boxes are to be cut from", "frame")
    if boxes is None:
        raise InvalidRequest("boxes is missing: say where in the frame people are, as [[x, y, width, height]]", "boxes")
    parsed = parse_boxes(boxes, max_boxes)
    return PostedFrame(await frame.read(), frame.filename, parsed)
