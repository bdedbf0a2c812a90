"""The change log as the index reads it."""

from collections.abc import AsyncIterator, Sequence

from app.database import Database
from app.gallery.repository import GalleryRepository
from app.index.port import Addition, Change

_CROPS_AT_ONCE = 2_000


class DatabaseChangeFeed:
    """One model's embeddings and what happens to them, out of the database."""

    def __init__(self, database: Database, model_id: str) -> None:
        self._database = database
        self._model_id = model_id

    async def last_sequence(self) -> int:
        """The number of the last change; 0 where nothing ever changed."""
        async with self._database.read() as session:
            return await GalleryRepository(session).last_sequence(self._model_id)

    async def rows(self) -> AsyncIterator[Sequence[Addition]]:
        """Every crop, in batches, each with sequence 0."""
        key = 0
        while True:
            async with self._database.read() as session:
                found = await GalleryRepository(session).embedded_crops(key, self._model_id, _CROPS_AT_ONCE)
            if not found:
                return
            key = found[-1].key
            yield found

    async def rows_of(self, keys: Sequence[int]) -> Sequence[Addition]:
        """Those crops of these keys that there are, each with sequence 0."""
        found: list[Addition] = []
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            for start in range(0, len(keys), _CROPS_AT_ONCE):
                found += await repository.embedded_crops_of(keys[start : start + _CROPS_AT_ONCE], self._model_id)
        return found

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        """The next changes in order. What came and is gone by now is told as a removal."""
        async with self._database.read() as session:
            return await GalleryRepository(session).changes(sequence, self._model_id, limit)
