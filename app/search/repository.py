"""All queries of stored searches."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.search.tables import Search


class SearchRepository:
    """The queries of stored searches within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, search: Search) -> None:
        """Add a search."""
        self._session.add(search)

    async def search(self, search_id: str) -> Search | None:
        """One search."""
        return await self._session.get(Search, search_id)
