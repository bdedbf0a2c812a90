"""Stores pictures, their files and their rows, safely during concurrent deletions."""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from app.embedding.decoding import PictureFacts
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository


@dataclass(frozen=True)
class Picture:
    """A picture as it was posted, its digest, and its format and size."""

    content: bytes
    sha256: str
    facts: PictureFacts


async def store_files(images: ImageStore, pictures: Collection[Picture]) -> None:
    """Write the pictures' files. This is slow, so it is done before the transaction begins."""
    await images.put({picture.sha256: picture.content for picture in pictures})


async def record(repository: GalleryRepository, images: ImageStore, pictures: Collection[Picture]) -> None:
    """Insert the pictures' rows, within a writing unit of work.

    A concurrent deletion may have removed a file after `store_files` found it. Writers are serialised, so no file is
    removed during this unit of work, which writes missing files again.
    """
    by_hash = {picture.sha256: picture for picture in pictures}
    await repository.add_images(
        {sha256: asdict(picture.facts) | {"bytes": len(picture.content)} for sha256, picture in by_hash.items()}
    )
    missing = await images.missing(by_hash)
    await images.put({sha256: by_hash[sha256].content for sha256 in missing})
