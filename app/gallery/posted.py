"""The pictures of a `POST /embed`: files, or a frame with boxes."""

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
from app.kit.disconnect import Disconnect


@dataclass(frozen=True)
class PostedFiles:
    """Crops, one file each."""

    contents: Sequence[bytes]
    names: Sequence[str | None]

    async def embed(self, embedding: EmbeddingService) -> Sequence[Result]:
        """Embed each file without storing it. Raises QueueFull, QueueClosed."""
        return await embedding.embed(self.contents, Priority.BULK)

    async def store(
        self, gallery: GalleryService, metadata: Mapping[int, CropMetadata], disconnect: Disconnect
    ) -> Stored:
        """Store the files that have metadata, by position. Raises QueueFull, QueueClosed, ClientDisconnected."""
        crops = [NewCrop(self.contents[position], item) for position, item in metadata.items()]
        return await gallery.store(crops, disconnect)


@dataclass(frozen=True)
class PostedFrame:
    """Crops as boxes of one frame; `names`: the frame's file name for each."""

    content: bytes
    boxes: Sequence[Box]
    names: Sequence[str | None]

    async def embed(self, embedding: EmbeddingService) -> Sequence[CutResult]:
        """Embed each box without storing it. Raises PictureError, QueueFull, QueueClosed."""
        return await embedding.embed_frame(self.content, self.boxes, Priority.BULK)

    async def store(
        self, gallery: GalleryService, metadata: Mapping[int, CropMetadata], disconnect: Disconnect
    ) -> Stored:
        """Store the boxes that have metadata, by position. Raises what `embed` does, and ClientDisconnected."""
        crops = [NewBox(self.boxes[position], item) for position, item in metadata.items()]
        return await gallery.store_frame(self.content, crops, disconnect)


async def read_posted(
    files: Sequence[UploadFile] | None, frame: UploadFile | None, boxes: str | None, max_boxes: int
) -> PostedFiles | PostedFrame:
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
    return PostedFrame(await frame.read(), parsed, [frame.filename] * len(parsed))
