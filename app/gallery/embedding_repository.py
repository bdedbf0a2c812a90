"""The queries of embeddings and of the change log."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ScalarSelect, Select, and_, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import insert_of
from app.gallery.attributes import text_of
from app.gallery.conditions import sql_of
from app.gallery.tables import ADDED, Change, Crop, Embedding, TrimmedChanges
from app.index import port as index

_STORED = np.dtype("<f2")
_INDEXED = (
    Embedding.vector,
    Crop.camera_id,
    Crop.captured_at,
    Crop.track_id,
    Crop.person_id,
    Crop.attribute_lines,
)
"""The columns that an index holds of a crop."""


class EmbeddingRepository:
    """The queries of embeddings and of the change log within one unit of work."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def embeddings(self, crop_keys: Collection[int], model_id: str) -> dict[int, NDArray[np.float16]]:
        """One model's embeddings `(2048,)` float16 by crop key; crops that it has not embedded are left out."""
        if not crop_keys:
            return {}
        query = select(Embedding.crop_key, Embedding.vector).where(
            Embedding.model_id == model_id, Embedding.crop_key.in_(crop_keys)
        )
        return {key: _unpack(vector) for key, vector in await self._session.execute(query)}

    async def add_embeddings(self, vectors: Mapping[int, NDArray[np.floating]], model_id: str) -> None:
        """Add one model's embeddings `(2048,)` by crop key, and log them."""
        if not vectors:
            return
        await self._session.execute(
            insert(Embedding.core()),
            [
                {"model_id": model_id, "crop_key": key, "vector": vector.astype(_STORED).tobytes()}
                for key, vector in vectors.items()
            ],
        )
        await self._session.execute(
            insert(Change.core()),
            [{"model_id": model_id, "crop_key": key, "what": ADDED} for key in vectors],
        )

    async def embedding_counts(self) -> Mapping[str, int]:
        """How many crops each model has embedded."""
        rows = await self._session.execute(select(Embedding.model_id, func.count()).group_by(Embedding.model_id))
        return {row[0]: row[1] for row in rows}

    async def last_sequence(self, model_id: str) -> int:
        """The number of the last change of one model's embeddings, trimmed or not; 0 where there was none."""
        last = select(func.max(Change.sequence)).where(Change.model_id == model_id).scalar_subquery()
        number: int = (await self._session.scalars(select(func.coalesce(last, _trimmed_to(model_id), 0)))).one()
        return number

    async def trimmed_to(self, model_id: str) -> int:
        """The number of the last trimmed change of one model's embeddings; 0 where none was trimmed."""
        number: int = (await self._session.scalars(select(func.coalesce(_trimmed_to(model_id), 0)))).one()
        return number

    async def changes(self, after: int, model_id: str, limit: int) -> list[index.Change]:
        """The next changes of one model's embeddings. An addition whose crop is deleted is reported as a removal."""
        of_model = and_(Embedding.crop_key == Change.crop_key, Embedding.model_id == model_id)
        query = (
            select(Change.sequence, Change.crop_key, Change.what, *_INDEXED)
            .outerjoin(Embedding, of_model)
            .outerjoin(Crop, Crop.key == Embedding.crop_key)
            .where(Change.model_id == model_id, Change.sequence > after)
            .order_by(Change.sequence)
            .limit(limit)
        )
        return [
            index.Removal(sequence, key)
            if what != ADDED or vector is None
            else index.Addition(sequence, key, _unpack(vector), _columns(columns))
            for sequence, key, what, vector, *columns in await self._session.execute(query)
        ]

    async def logged_models(self) -> list[str]:
        """The ids of all models in the change log."""
        models: list[str] = []
        # A loose index scan: one look-up for each model; DISTINCT would read the whole index.
        while model_id := await self._session.scalar(
            select(func.min(Change.model_id)).where(Change.model_id > (models[-1] if models else ""))
        ):
            models.append(model_id)
        return models

    async def oldest_changes(self, model_id: str, kept: int, limit: int) -> int | None:
        """The last of one model's changes to trim, so that the newest `kept` stay and at most `limit` are trimmed.

        None where the model has `kept` changes or fewer.
        """
        of_model = Change.model_id == model_id
        first, last = (select(f(Change.sequence)).where(of_model).scalar_subquery() for f in (func.min, func.max))
        numbers = await self._session.scalar(select(last - first + 1))
        if numbers is None or numbers <= kept:  # the usual case, answered from the index
            return None
        sequences = select(Change.sequence).where(of_model)
        end = await self._session.scalar(sequences.order_by(Change.sequence.desc()).offset(kept).limit(1))
        if end is None:
            return None
        oldest = sequences.where(Change.sequence <= end).order_by(Change.sequence).limit(limit).subquery()
        to: int = (await self._session.scalars(select(func.max(oldest.c.sequence)))).one()
        return to

    async def trim_changes(self, model_id: str, to: int) -> None:
        """Delete one model's changes up to a number, and store that number."""
        await self._session.execute(delete(Change).where(Change.model_id == model_id, Change.sequence <= to))
        row = insert_of(self._session, TrimmedChanges).values(model_id=model_id, sequence=to)
        further = row.excluded.sequence > TrimmedChanges.sequence  # another process may have trimmed further
        await self._session.execute(
            row.on_conflict_do_update(
                index_elements=["model_id"], set_={"sequence": row.excluded.sequence}, where=further
            )
        )

    async def embedded_crops(self, after: int, model_id: str, limit: int) -> list[index.Addition]:
        """Crops with one model's embedding, by key, each with sequence 0."""
        return await self._additions(
            _embedded(model_id).where(Embedding.crop_key > after).order_by(Embedding.crop_key).limit(limit)
        )

    async def embedded_keys(self, model_id: str) -> Sequence[int]:
        """The keys of all crops with one model's embedding."""
        return (await self._session.scalars(select(Embedding.crop_key).where(Embedding.model_id == model_id))).all()

    async def embedded_crops_of(self, keys: Collection[int], model_id: str) -> list[index.Addition]:
        """Crops with these keys and one model's embedding, each with sequence 0."""
        return await self._additions(_embedded(model_id).where(Embedding.crop_key.in_(keys)))

    async def embedded_crops_by_key(
        self, keys: Collection[int], model_id: str, crop_filter: index.Filter
    ) -> dict[int, tuple[Crop, NDArray[np.float16]]]:
        """Crops with one model's embedding, by key; those that are deleted or do not pass the filter are left out."""
        query = (
            select(Crop, Embedding.vector)
            .join(Embedding, Embedding.crop_key == Crop.key)
            .where(Embedding.model_id == model_id, Crop.key.in_(keys), *map(sql_of, crop_filter.conditions()))
        )
        return {crop.key: (crop, _unpack(vector)) for crop, vector in await self._session.execute(query)}

    async def log(self, keys: Collection[int], what: int) -> None:
        """Log a change of crops for each model that has embedded them."""
        changed = select(Embedding.model_id, Embedding.crop_key, literal(what)).where(Embedding.crop_key.in_(keys))
        ordered = changed.order_by(Embedding.crop_key, Embedding.model_id)
        await self._session.execute(insert(Change.core()).from_select(["model_id", "crop_key", "what"], ordered))

    async def _additions(self, query: Select[*tuple[Any, ...]]) -> list[index.Addition]:
        return [
            index.Addition(0, key, _unpack(vector), _columns(columns))
            for key, vector, *columns in await self._session.execute(query)
        ]


def _trimmed_to(model_id: str) -> ScalarSelect[int]:
    return select(TrimmedChanges.sequence).where(TrimmedChanges.model_id == model_id).scalar_subquery()


def _embedded(model_id: str) -> Select[*tuple[Any, ...]]:
    """The query of crops with one model's embedding, with `_INDEXED`."""
    return (
        select(Embedding.crop_key, *_INDEXED)
        .join(Crop, Crop.key == Embedding.crop_key)
        .where(Embedding.model_id == model_id)
    )


def _unpack(vector: bytes) -> NDArray[np.float16]:
    return np.frombuffer(vector, dtype=_STORED)


def _columns(values: Sequence[Any]) -> index.CropColumns:
    """values: of `_INDEXED` without the vector."""
    camera_id, captured_at, track_id, person_id, lines = values
    return index.CropColumns(camera_id, captured_at, track_id, person_id, text_of(lines))
