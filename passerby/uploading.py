"""Stores any number of crops: several requests at once, in bounded memory, and a bad crop fails alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from app.gallery.schemas import CropOut, EmbedItem
from passerby.errors import InvalidRequest, PictureError
from passerby.pictures import Picture, file_of

REQUESTS_IN_FLIGHT = 4
CROPS_PER_REQUEST = 32
BYTES_PER_REQUEST = 16 * 1024 * 1024  # times REQUESTS_IN_FLIGHT, the bound of an upload's memory


@dataclass(frozen=True)
class NewCrop:
    """A crop to store: its picture and what is known of it.

    captured_at: with a time zone. time_guessed: captured_at is a guess, such as the time of the file; then the same
    picture by the same camera is the same crop, whatever its time.
    """

    picture: Picture
    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    time_guessed: bool = False

    def metadata(self) -> dict[str, Any]:
        """The crop's object in the form field `items` of `POST /embed`."""
        known = {
            "camera_id": self.camera_id,
            "captured_at": self.captured_at,
            "track_id": self.track_id,
            "person_id": self.person_id,
            "attributes": dict(self.attributes),
            "time_guessed": self.time_guessed,
        }
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True)
class UploadedCrop:
    """The outcome of one crop.

    position: its place among those given, from 0; differs: the labels in which an existing crop differs, and
    `captured_at` where that was a guess, or in which it differed until it was updated; problem: why it was not stored.
    """

    position: int
    crop: NewCrop
    status: Literal["created", "existing", "updated", "failed"]
    stored: CropOut | None = None
    differs: Sequence[str] = ()
    problem: str | None = None


@dataclass
class UploadSummary:
    """How many crops are new in the gallery, were in it before, were updated; why others failed, by position.

    differing: those of the existing ones that have other labels, or a guess as their time, which `update` changes.
    """

    created: int = 0
    existing: int = 0
    differing: int = 0
    updated: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def handled(self) -> int:
        """How many crops have an outcome."""
        return self.created + self.existing + self.updated + len(self.failed)

    def add(self, outcome: UploadedCrop) -> None:
        """Count an outcome."""
        if outcome.status == "created":
            self.created += 1
        elif outcome.status == "existing":
            self.existing += 1
            self.differing += bool(outcome.differs)
        elif outcome.status == "updated":
            self.updated += 1
        else:
            self.failed[outcome.position] = outcome.problem or "the service gave no reason"


Progress = Callable[[UploadedCrop], None]
"""Called in the thread of the event loop; of `Client`, in the client's thread."""

File = tuple[str, bytes]
Post = Callable[[Sequence[File], Sequence[Mapping[str, Any]]], Awaitable[Sequence[EmbedItem]]]
"""Posts files with the metadata of each; gives the outcome of each, in order."""


async def upload(post: Post, crops: Iterable[NewCrop], progress: Progress | None = None) -> UploadSummary:
    """Store crops, each of which has one outcome. Raises ServiceError, and what `crops` raises."""
    uploading = _Uploading(post, progress)
    batches = _batches(enumerate(crops))
    taking = asyncio.Lock()

    async def send_batches() -> None:
        while True:
            async with taking:
                batch = await asyncio.to_thread(next, batches, None)
            if batch is None:
                return
            await uploading.send(batch)

    try:
        async with asyncio.TaskGroup() as senders:
            for _ in range(REQUESTS_IN_FLIGHT):
                senders.create_task(send_batches())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return uploading.summary


@dataclass(frozen=True)
class _Loaded:
    position: int
    crop: NewCrop
    file: File


class _Uploading:
    def __init__(self, post: Post, progress: Progress | None) -> None:
        self.summary = UploadSummary()
        self._post = post
        self._progress = progress

    async def send(self, batch: Sequence[tuple[int, NewCrop]]) -> None:
        loaded = []
        for outcome in await asyncio.to_thread(_load, batch):
            if isinstance(outcome, UploadedCrop):
                self._report(outcome)
            else:
                loaded.append(outcome)
        await self._send(loaded)

    async def _send(self, crops: Sequence[_Loaded]) -> None:
        """Send crops in one request; if it is refused as a whole, retry in halves, so a bad crop fails alone."""
        if not crops:
            return
        try:
            items = await self._post([crop.file for crop in crops], [crop.crop.metadata() for crop in crops])
        except InvalidRequest as refused:
            if len(crops) == 1:
                self._report(UploadedCrop(crops[0].position, crops[0].crop, "failed", problem=str(refused)))
                return
            middle = len(crops) // 2
            await self._send(crops[:middle])
            await self._send(crops[middle:])
            return
        for crop, item in zip(crops, items, strict=True):
            if item.status == "created" or item.status == "existing" or item.status == "updated":
                self._report(UploadedCrop(crop.position, crop.crop, item.status, item.crop, item.differs))
            else:
                problem = None if item.problem is None else item.problem.detail or item.problem.title
                self._report(UploadedCrop(crop.position, crop.crop, "failed", problem=problem))

    def _report(self, outcome: UploadedCrop) -> None:
        self.summary.add(outcome)
        if self._progress is not None:
            self._progress(outcome)


def _load(batch: Sequence[tuple[int, NewCrop]]) -> list[_Loaded | UploadedCrop]:
    """The crops with their files; those that cannot be read have their outcome."""
    loaded: list[_Loaded | UploadedCrop] = []
    for position, crop in batch:
        try:
            loaded.append(_Loaded(position, crop, file_of(crop.picture, position)))
        except PictureError as error:
            loaded.append(UploadedCrop(position, crop, "failed", problem=error.reason))
    return loaded


def _batches(crops: Iterable[tuple[int, NewCrop]]) -> Iterator[list[tuple[int, NewCrop]]]:
    """Group crops into requests."""
    batch: list[tuple[int, NewCrop]] = []
    total = 0
    for position, crop in crops:
        size = _size(crop.picture)
        if batch and (len(batch) == CROPS_PER_REQUEST or total + size > BYTES_PER_REQUEST):
            yield batch
            batch, total = [], 0
        batch.append((position, crop))
        total += size
    if batch:
        yield batch


def _size(picture: Picture) -> int:
    """Bytes of a picture, at most; 0 where reading it will report an error."""
    if isinstance(picture, bytes):
        return len(picture)
    if isinstance(picture, np.ndarray):
        return picture.nbytes
    if isinstance(picture, Image.Image):
        return picture.width * picture.height * len(picture.getbands())
    try:
        return Path(picture).stat().st_size if isinstance(picture, str | PathLike) else 0
    except (OSError, ValueError):
        return 0
