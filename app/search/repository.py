"""All queries of stored searches."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.search.tables import Search, SearchPicture


class SearchRepository:
    """The queries of stored searches within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, search: Search, pictures: Sequence[bytes]) -> None:
        """Add a search with the pictures of its query."""
        self._session.add(search)
        self._session.add_all(
            SearchPicture(search_id=search.id, position=position, content=content)
            for position, content in enumerate(pictures)
        )

    async def search(self, search_id: str) -> Search | None:
        """One search."""
        return await self._session.get(Search, search_id)

    async def pictures(self, search_id: str) -> Sequence[bytes]:
        """The pictures of a search's query, in the order in which they were posted."""
        query = (
            select(SearchPicture.content).where(SearchPicture.search_id == search_id).order_by(SearchPicture.position)
        )
        return (await self._session.scalars(query)).all()
