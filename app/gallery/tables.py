"""The tables of the gallery. Instants are microseconds since 1970 UTC."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table

KEY = BigInteger().with_variant(Integer, "sqlite")
"""A row number. SQLite generates row numbers only in a column of exactly this type."""

ADDED, REMOVED = 1, -1
"""The values of `Change.what`."""


class Gallery(Table):
    """The gallery's id, in one row. Snapshots and collections carry it, so an index of another gallery is refused."""

    __tablename__ = "gallery"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)


class Camera(Table):
    """A source of crops."""

    __tablename__ = "cameras"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    place: Mapped[str | None] = mapped_column(String(200))
    time_zone: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)


class Image(Table):
    """Format and size of a stored image file, which is named by its content's hash."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(32))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)


class OrphanedImage(Table):
    """An image that nothing refers to any more and whose file must be deleted."""

    __tablename__ = "doomed_images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)


class ImageUse(Table):
    """A query picture of a search before 0.2. Later searches have pictures of their own."""

    __tablename__ = "image_uses"

    owner_id: Mapped[str] = mapped_column(String(26), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"))

    __table_args__ = (Index("ix_image_uses_image_sha256", "image_sha256"),)


class SearchPicture(Table):
    """A picture of a search's query, as it was posted; it goes with the search.

    `content` is empty once no crop has the picture any more, where one had it: a deleted crop's picture is not kept.
    `sha256` is that of the content, and None where the content is empty. The pictures of searches before 0.2 are images
    of the gallery (`ImageUse`).
    """

    __tablename__ = "search_pictures"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    sha256: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (Index("ix_search_pictures_sha256", "sha256"),)


class Crop(Table):
    """One image of one person. `key` identifies the crop in the index, `id` in the HTTP API."""

    __tablename__ = "crops"

    key: Mapped[int] = mapped_column(KEY, primary_key=True)
    id: Mapped[str] = mapped_column(String(26), unique=True)
    camera_id: Mapped[str] = mapped_column(ForeignKey("cameras.id"))
    captured_at: Mapped[int] = mapped_column(BigInteger)
    utc_offset: Mapped[int] = mapped_column(Integer)  # seconds, of the zone in which captured_at was posted
    time_guessed: Mapped[bool] = mapped_column(Boolean, server_default=false())
    track_id: Mapped[str | None] = mapped_column(String(200))
    person_id: Mapped[str | None] = mapped_column(String(200))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    attribute_lines: Mapped[str | None] = mapped_column(Text)  # what filters compare: app/gallery/attributes.py
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"))
    created_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("camera_id", "captured_at", "image_sha256"),
        Index("ix_crops_captured_at_key", "captured_at", "key"),
        Index("ix_crops_person_id", "person_id"),
        Index("ix_crops_track_id", "track_id"),
        Index("ix_crops_image_sha256", "image_sha256"),
        {"sqlite_autoincrement": True},  # SQLite must not reuse the key of a deleted crop
    )


class Embedding(Table):
    """One model's embedding of a crop: 2048 float16 numbers, little-endian."""

    __tablename__ = "embeddings"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    crop_key: Mapped[int] = mapped_column(
        KEY, ForeignKey("crops.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (Index("ix_embeddings_crop_key", "crop_key"),)


class Change(Table):
    """The change log that every index applies: one row for each embedding that was added or removed.

    A change of a crop's labels is a further addition of its embeddings.

    On PostgreSQL a trigger draws the sequence numbers, so they become visible in ascending order for all writers.
    """

    __tablename__ = "changes"

    sequence: Mapped[int] = mapped_column(KEY, primary_key=True)
    model_id: Mapped[str] = mapped_column(String(128))
    crop_key: Mapped[int] = mapped_column(KEY)
    what: Mapped[int] = mapped_column(SmallInteger)

    __table_args__ = (
        Index("ix_changes_model_id_sequence", "model_id", "sequence"),
        {"sqlite_autoincrement": True},
    )


class TrimmedChanges(Table):
    """The last change of a model that was trimmed from the change log."""

    __tablename__ = "trimmed_changes"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)


class Deletion(Table):
    """A deletion of crops or searches that may have left something behind, in stored searches and in files.

    A row says nothing of what was deleted. `Erasure` (app/search/erasure.py) removes the rest, then the row.
    """

    __tablename__ = "deletions"

    id: Mapped[int] = mapped_column(KEY, primary_key=True)
    deleted_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = ({"sqlite_autoincrement": True},)
