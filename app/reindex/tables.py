"""The table of what a re-embedding could not read."""

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table
from app.gallery.tables import KEY


class UnreadableCrop(Table):
    """A stored crop that could not be embedded with a model, so that the model does not wait for it."""

    __tablename__ = "unreadable_crops"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    crop_key: Mapped[int] = mapped_column(
        KEY, ForeignKey("crops.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    problem: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_unreadable_crops_crop_key", "crop_key"),)
