"""The table of stored searches. Instants are microseconds since 1970 UTC."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Table


class Search(Table):
    """A search with its parameters and matches."""

    __tablename__ = "searches"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    model_id: Mapped[str] = mapped_column(String(128))
    gallery_size: Mapped[int] = mapped_column(Integer)
    compared: Mapped[int] = mapped_column(Integer)
    filters: Mapped[dict[str, Any]] = mapped_column(JSON)
    query_crop_ids: Mapped[list[str]] = mapped_column(JSON)
    matches: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # crop_id, similarity, parts; best first


class SearchPicture(Table):
    """A picture of a search's query, as it was posted. It goes with the search.

    Those of searches before 0.2 are images of the gallery (`ImageUse`).
    """

    __tablename__ = "search_pictures"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
