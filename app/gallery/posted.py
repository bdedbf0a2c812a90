"""The pictures of a `POST /embed`: files, or a frame with boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import UploadFile

from app.embedding.frames import Box, CropFile
from app.embedding.service import EmbeddingService
from app.errors import InvalidRequest
from app.gallery.forms import parse_boxes
from model.decoding import PictureError


@dataclass(frozen=True)
class Posted:
    """Crops as files, or one frame with `boxes`; `names`: for each crop the name of the file that shows it."""

    contents: Sequence[bytes]
    boxes: Sequence[Box]
    names: Sequence[str | None]

    async def crops(self, embedding: EmbeddingService) -> Sequence[CropFile | PictureError]:
        """The file of each crop. Raises PictureError where the frame cannot be used; QueueFull, QueueClosed."""
        if self.boxes:
            return await embedding.cut(self.contents[0], self.boxes)
        return [CropFile(content) for content in self.contents]


async def read_posted(
    files: Sequence[UploadFile] | None, frame: UploadFile | None, boxes: str | None, max_boxes: int
) -> Posted:
    """The form fields `files`, or `frame` and `boxes`. Raises InvalidRequest unless exactly one of the two is given."""
    if bool(files) == (frame is not None or boxes is not None):
        raise InvalidRequest("give either files, or frame and boxes: which people are to be embedded?", "files")
    if files:
        return Posted([await file.read() for file in files], [], [file.filename for file in files])
    if frame is None:
        raise InvalidRequest("frame is missing: post the picture that the boxes are to be cut from", "frame")
    if boxes is None:
        raise InvalidRequest("boxes is missing: say where in the frame people are, as [[x, y, width, height]]", "boxes")
    parsed = parse_boxes(boxes, max_boxes)
    return Posted([await frame.read()], parsed, [frame.filename] * len(parsed))
