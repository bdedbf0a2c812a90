"""The table of crops that a reindex could not embed."""

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table
from app.gallery.tables import KEY


class UnreadableCrop(Table):
    """A stored crop that a model could not embed. It does not keep the model from becoming active."""

    __tablename__ = "unreadable_crops"

    model_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    crop_key: Mapped[int] = mapped_column(
        KEY, ForeignKey("crops.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    problem: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_unreadable_crops_crop_key", "crop_key"),)
