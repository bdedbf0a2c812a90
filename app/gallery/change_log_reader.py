"""Reads embeddings and the change log from the database, for the index."""

from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.database import Database
from app.gallery.embedding_repository import EmbeddingRepository
from app.index.port import Addition, Change
from app.index.sync import ChangesTrimmed

_CROPS_PER_BATCH = 2_000
TRIMMED_PER_TRANSACTION = 5_000  # other writers wait for the transaction
_CHANNEL = "passerby_changes"  # the channel of a trigger (migration 0002)


class DatabaseChangeLogReader:
    """See `ChangeLogReader` in `app/index/sync.py`."""

    def __init__(self, database: Database, model_id: str, changes_kept: int) -> None:
        """changes_kept: number of the newest changes of each model that `trim` keeps."""
        self._database = database
        self._model_id = model_id
        self._changes_kept = changes_kept

    async def last_sequence(self) -> int:
        """Number of the last change, even if it is trimmed; 0 before the first."""
        async with self._database.read() as session:
            return await EmbeddingRepository(session).last_sequence(self._model_id)

    async def rows(self) -> AsyncIterator[Sequence[Addition]]:
        """All crops in batches, each with sequence 0."""
        key = 0
        while True:
            async with self._database.read() as session:
                found = await EmbeddingRepository(session).embedded_crops(key, self._model_id, _CROPS_PER_BATCH)
            if not found:
                return
            key = found[-1].key
            yield found

    async def keys(self) -> NDArray[np.int64]:
        """The keys of all crops, `(N,)`."""
        async with self._database.read() as session:
            return np.array(await EmbeddingRepository(session).embedded_keys(self._model_id), np.int64)

    async def rows_by_key(self, keys: Sequence[int]) -> Sequence[Addition]:
        """The existing crops of these keys, each with sequence 0."""
        found: list[Addition] = []
        async with self._database.read() as session:
            repository = EmbeddingRepository(session)
            for start in range(0, len(keys), _CROPS_PER_BATCH):
                found += await repository.embedded_crops_of(keys[start : start + _CROPS_PER_BATCH], self._model_id)
        return found

    async def changes_after(self, sequence: int, limit: int) -> Sequence[Change]:
        """The next changes in order. The addition of a crop that is deleted by now is given as a removal.

        Raises ChangesTrimmed.
        """
        async with self._database.read() as session:
            repository = EmbeddingRepository(session)
            trimmed_to = await repository.trimmed_to(self._model_id)
            if sequence < trimmed_to:
                raise ChangesTrimmed(f"changes {sequence + 1} to {trimmed_to} are no longer in the log")
            return await repository.changes(sequence, self._model_id, limit)

    def notifications(self) -> AsyncIterator[None]:
        """An item when any process has committed changes of any model; none on SQLite."""
        return self._database.notifications(_CHANNEL)

    async def trim(self) -> bool:
        """Delete some of the changes, of all models, that need not be kept; False if there were none.

        Several processes may trim at once.
        """
        async with self._database.read() as session:
            repository = EmbeddingRepository(session)
            ends = {
                model_id: await repository.oldest_changes(model_id, self._changes_kept, TRIMMED_PER_TRANSACTION)
                for model_id in await repository.logged_models()
            }
        trimmed = {model_id: end for model_id, end in ends.items() if end is not None}
        for model_id, end in trimmed.items():
            async with self._database.write() as session:
                await EmbeddingRepository(session).trim_changes(model_id, end)
        return bool(trimmed)
