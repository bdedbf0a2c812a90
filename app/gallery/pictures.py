"""Pictures that are to stay: their files and their rows, kept in step while others delete."""

from collections.abc import Collection
from dataclasses import asdict, dataclass

from app.embedding.decoding import PictureFacts
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository


@dataclass(frozen=True)
class Picture:
    """A picture as it came, the digest that names it, and what was found in it."""

    content: bytes
    sha256: str
    facts: PictureFacts


async def store_files(images: ImageStore, pictures: Collection[Picture]) -> None:
    """Write the pictures' files: the slow step, to be taken before the transaction begins."""
    await images.put({picture.sha256: picture.content for picture in pictures})


async def record(repository: GalleryRepository, images: ImageStore, pictures: Collection[Picture]) -> None:
    """Within a writing unit of work, note that the pictures are used.

    A deletion may have taken a file after `store_files` saw it; none can while this unit of work lasts, so what is
    missing now is written again.
    """
    by_hash = {picture.sha256: picture for picture in pictures}
    await repository.add_images(
        {sha256: asdict(picture.facts) | {"bytes": len(picture.content)} for sha256, picture in by_hash.items()}
    )
    missing = await images.missing(by_hash)
    await images.put({sha256: by_hash[sha256].content for sha256 in missing})
