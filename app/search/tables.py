"""The table of stored searches. Instants are microseconds since 1970 UTC."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table


class Search(Table):
    """A search with its parameters and matches.

    Of crops that are deleted, nothing is kept: their places are null among the matches and empty among the query's
    crops, and a filter by a label that no crop has any more loses it (`app/search/erasure.py`).
    """

    __tablename__ = "searches"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    model_id: Mapped[str] = mapped_column(String(128))
    gallery_size: Mapped[int] = mapped_column(Integer)
    compared: Mapped[int] = mapped_column(Integer)
    filters: Mapped[dict[str, Any]] = mapped_column(JSON)
    query_crop_ids: Mapped[list[str]] = mapped_column(JSON)
    matches: Mapped[list[dict[str, Any] | None]] = mapped_column(JSON)  # crop_id, similarity, parts; best first

    __table_args__ = (Index("ix_searches_created_at", "created_at"),)
