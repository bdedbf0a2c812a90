"""The tables of the models."""

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table
from app.gallery.tables import KEY

ACTIVE = "active"
"""The state of the model that new crops and queries are embedded by; one model at most has it."""

NEXT = "next"
"""The state of the model that becomes active when it has embedded all crops; one model at most has it."""

KEPT = "kept"
"""The state of a model that was active; its embeddings are kept."""

DROPPED = "dropped"
"""The state of a model whose embeddings are being deleted."""


class KnownModel(Table):
    """A model that embeds crops, did so or will, with its state."""

    __tablename__ = "models"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(String(128))  # its name in the checkpoint store
    state: Mapped[str] = mapped_column(String(16))  # one of ACTIVE, NEXT, KEPT, DROPPED
    created_at: Mapped[int] = mapped_column(BigInteger)  # microseconds since 1970 UTC
    allow_missing: Mapped[bool] = mapped_column(Boolean)  # become active even if many pictures are unreadable
    crops_per_second: Mapped[float | None] = mapped_column(Float)  # recently, while it embeds stored crops
    trouble: Mapped[str | None] = mapped_column(Text)  # why embedding does not go on


class UnreadableCrop(Table):
    """A stored crop that a model could not embed. It does not keep the model from becoming active."""

    __tablename__ = "unreadable_crops"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    crop_key: Mapped[int] = mapped_column(
        KEY, ForeignKey("crops.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    problem: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_unreadable_crops_crop_key", "crop_key"),)
