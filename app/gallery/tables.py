"""The tables of the gallery. Instants are microseconds since 1970 UTC."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table

KEY = BigInteger().with_variant(Integer, "sqlite")
"""A row number: SQLite counts by itself only in a column of exactly this type."""

ADDED, REMOVED = 1, -1
"""What a row of the change log says happened."""

ANSWERS, NEXT, KEPT, DROPPED = "answers", "next", "kept", "dropped"
"""Which model answers (one does), which one crops are embedded with so that it can (one at most), which ones answered
before and could again, and which ones' embeddings are being deleted."""


class Gallery(Table):
    """The one row that tells this gallery from all others, so that no index saved for another is taken for its own."""

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
    """The facts of a stored image file, which is named by its content's hash."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(32))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)


class DoomedImage(Table):
    """An image that nothing refers to any more, whose file is still to be deleted."""

    __tablename__ = "doomed_images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)


class ImageUse(Table):
    """An image that something else than a crop refers to, such as a stored search by its id."""

    __tablename__ = "image_uses"

    owner_id: Mapped[str] = mapped_column(String(26), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"))

    __table_args__ = (Index("ix_image_uses_image_sha256", "image_sha256"),)


class Crop(Table):
    """One image of one person. `key` is the crop's number in the index, `id` its name outside."""

    __tablename__ = "crops"

    key: Mapped[int] = mapped_column(KEY, primary_key=True)
    id: Mapped[str] = mapped_column(String(26), unique=True)
    camera_id: Mapped[str] = mapped_column(ForeignKey("cameras.id"))
    captured_at: Mapped[int] = mapped_column(BigInteger)
    utc_offset: Mapped[int] = mapped_column(Integer)  # seconds, of the zone that captured_at was told in
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
        {"sqlite_autoincrement": True},  # the key of a deleted crop is never given to another
    )


class Embedding(Table):
    """What one model made of a crop: 2048 numbers of two bytes (float16, little-endian)."""

    __tablename__ = "embeddings"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    crop_key: Mapped[int] = mapped_column(
        KEY, ForeignKey("crops.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (Index("ix_embeddings_crop_key", "crop_key"),)


class KnownModel(Table):
    """A model that crops were, are or will be embedded with, and whose turn it is to answer."""

    __tablename__ = "models"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(String(128))  # its name among the stored checkpoints
    state: Mapped[str] = mapped_column(String(16))  # one of ANSWERS, NEXT, KEPT, DROPPED
    created_at: Mapped[int] = mapped_column(BigInteger)
    lossy: Mapped[bool] = mapped_column(Boolean)  # whether it may answer though many pictures cannot be read
    crops_per_second: Mapped[float | None] = mapped_column(Float)  # of late, while crops are embedded for it
    trouble: Mapped[str | None] = mapped_column(Text)  # why that does not go on


class Change(Table):
    """The change log that every index follows: one row for each embedding that came or went.

    On PostgreSQL a trigger draws the sequence numbers, so that they become visible in their order whoever writes.
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
    """How far the change log of one model is gone: up to this number, and no further."""

    __tablename__ = "trimmed_changes"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
