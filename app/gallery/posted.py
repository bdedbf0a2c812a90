"""What `POST /embed` is given to embed: files, or a frame with boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import UploadFile

from app.embedding.frames import Box
from app.embedding.queue import Priority
from app.embedding.service import CutResult, EmbeddingService, Result
from app.errors import InvalidRequest
from app.gallery.forms import parse_boxes
from app.gallery.metadata import CropMetadata
from app.gallery.service import GalleryService, NewBox, NewCrop, Stored
from app.kit.leaving import Departure


@dataclass(frozen=True)
class PostedFiles:
    """Crops, each in a file of its own."""

    contents: Sequence[bytes]
    names: Sequence[str | None]

    async def embed(self, embedding: EmbeddingService) -> Sequence[Result]:
        """What has become of each file, nothing stored. Raises QueueFull, QueueClosed."""
        return await embedding.embed(self.contents, Priority.BULK)

    async def store(self, gallery: GalleryService, told: Mapping[int, CropMetadata], departure: Departure) -> Stored:
        """What has become of the files whose places `told` names. Raises QueueFull, QueueClosed, ClientLeft."""
        return await gallery.store([NewCrop(self.contents[place], one) for place, one in told.items()], departure)


@dataclass(frozen=True)
class PostedFrame:
    """Crops as boxes of one frame; `names`: the frame's file name for each."""

    content: bytes
    boxes: Sequence[Box]
    names: Sequence[str | None]

    async def embed(self, embedding: EmbeddingService) -> Sequence[CutResult]:
        """What has become of each box, nothing stored. Raises PictureError, QueueFull, QueueClosed."""
        return await embedding.embed_frame(self.content, self.boxes, Priority.BULK)

    async def store(self, gallery: GalleryService, told: Mapping[int, CropMetadata], departure: Departure) -> Stored:
        """What has become of the boxes whose places `told` names. Raises what `embed` does, and ClientLeft."""
        crops = [NewBox(self.boxes[place], one) for place, one in told.items()]
        return await gallery.store_frame(self.content, crops, departure)


async def read_posted(
    files: Sequence[UploadFile] | None, frame: UploadFile | None, boxes: str | None, most_boxes: int
) -> PostedFiles | PostedFrame:
    """The form fields `files`, `frame` and `boxes`. Raises InvalidRequest where they are not exactly one of the two."""
    if bool(files) == (frame is not None or boxes is not None):
        raise InvalidRequest("give either files, or frame and boxes: which people are to be embedded?", "files")
    if files:
        return PostedFiles([await file.read() for file in files], [file.filename for file in files])
    if frame is None:
        raise InvalidRequest("frame is missing: post the picture that the boxes are to be cut from", "frame")
    if boxes is None:
        raise InvalidRequest("boxes is missing: say where in the frame people are, as [[x, y, width, height]]", "boxes")
    parsed = parse_boxes(boxes, most_boxes)
    return PostedFrame(await frame.read(), parsed, [frame.filename] * len(parsed))
