"""The change log as the index reads it."""

from collections.abc import AsyncIterator, Sequence

from app.database import Database
from app.gallery.repository import GalleryRepository
from app.index.keeper import ChangesTrimmed
from app.index.port import Addition, Change

_CROPS_AT_ONCE = 2_000
_TRIMMED_AT_ONCE = 5_000  # writers wait for this in the meantime
_CHANNEL = "passerby_changes"  # what a trigger notifies on (migration 0002)


class DatabaseChangeFeed:
    """One model's embeddings and what happens to them, out of the database."""

    def __init__(self, database: Database, model_id: str, changes_kept: int) -> None:
        """changes_kept: how many changes of each model trimming leaves, the newest."""
        self._database = database
        self._model_id = model_id
        self._changes_kept = changes_kept

    async def last_sequence(self) -> int:
        """The number of the last change, be it trimmed by now; 0 where nothing ever changed."""
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
        """The next changes in order. What came and is gone by now is told as a removal. Raises ChangesTrimmed."""
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            trimmed_to = await repository.trimmed_to(self._model_id)
            if sequence < trimmed_to:
                raise ChangesTrimmed(f"changes {sequence + 1} to {trimmed_to} are wanted, and the log has them no more")
            return await repository.changes(sequence, self._model_id, limit)

    def hints(self) -> AsyncIterator[None]:
        """An item when changes of any model were committed, by whatever process; none on SQLite."""
        return self._database.notifications(_CHANNEL)

    async def trim(self) -> bool:
        """Delete some of the changes, of all models, that need not be kept; whether there were any.

        Several processes may do this at once.
        """
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            ends = {
                model_id: await repository.oldest_changes(model_id, self._changes_kept, _TRIMMED_AT_ONCE)
                for model_id in await repository.logged_models()
            }
        trimmed = {model_id: end for model_id, end in ends.items() if end is not None}
        for model_id, end in trimmed.items():
            async with self._database.write() as session:
                await GalleryRepository(session).trim_changes(model_id, end)
        return bool(trimmed)
