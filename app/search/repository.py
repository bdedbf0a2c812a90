"""All queries of stored searches."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.gallery.tables import SearchPicture
from app.search.tables import Search


class SearchRepository:
    """The queries of stored searches within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, search: Search, pictures: Sequence[tuple[str, bytes]]) -> None:
        """Add a search with the pictures of its query, each with its SHA-256."""
        self._session.add(search)
        await self._session.flush()  # its pictures refer to it
        self._session.add_all(
            SearchPicture(search_id=search.id, position=position, content=content, sha256=sha256)
            for position, (sha256, content) in enumerate(pictures)
        )

    async def search(self, search_id: str) -> Search | None:
        """One search."""
        return await self._session.get(Search, search_id)

    async def page(self, before: str | None, limit: int) -> Sequence[Search]:
        """Searches, latest first, from just after one of them."""
        query = select(Search).order_by(Search.id.desc()).limit(limit)
        if before is not None:
            query = query.where(Search.id < before)
        return (await self._session.scalars(query)).all()

    async def pictures(self, search_id: str) -> Sequence[bytes]:
        """The pictures of a search's query, in the order in which they were posted; empty ones are deleted."""
        query = (
            select(SearchPicture.content).where(SearchPicture.search_id == search_id).order_by(SearchPicture.position)
        )
        return (await self._session.scalars(query)).all()

    async def stored_before(self, created_at: int, limit: int) -> Sequence[str]:
        """The ids of some searches that were stored before a time."""
        return (await self._session.scalars(select(Search.id).where(Search.created_at < created_at).limit(limit))).all()

    async def change(self, search_id: str, values: Mapping[str, Any]) -> None:
        """Set columns of a search."""
        await self._session.execute(update(Search.core()).where(Search.core().c.id == search_id).values(values))

    async def delete(self, search_ids: Collection[str]) -> None:
        """Delete searches with the pictures of their queries, other than images of the gallery."""
        await self._session.execute(delete(Search.core()).where(Search.core().c.id.in_(search_ids)))
