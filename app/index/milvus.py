"""The index on a Milvus server, which several processes share: a collection for each gallery and model."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from secrets import token_hex
from typing import Any

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException

from app.index.checks import checked_query, refused_additions
from app.index.milvus_rows import ATTRIBUTES, CAMERA, CAPTURED, KEY, PERSON, TRACK, VECTOR, expression, row_of
from app.index.port import Addition, Change, Filter, Found, Hit, IndexLost, IndexUnreachable, Removal, VectorIndex
from app.milvus_address import MilvusAddress
from model.architecture import EMBEDDING_DIM

MOST_HITS = 16_384
"""Milvus gives no more for one search."""

_ROWS_AT_ONCE = 1_000  # 8.4 MB, well below what a server takes in one message
_SECONDS = 10.0  # for an answer
_SECONDS_TO_LOAD = 600.0  # a collection into the server's memory
_STRONG = "Strong"  # what was written before, by whatever process, is read

_QUIET = {"grpc.keepalive_time_ms": 2**31 - 1}  # servers hang up on who pings often; calls have their own time limit

_INDEX = {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 32, "efConstruction": 200}}
_LEAST_EF = 256  # candidates that HNSW keeps while it searches

_DECIMALS = 6  # beyond these, a server does not give equal embeddings equal similarities

_FORMAT, _MODEL, _LAST_SEQUENCE = "passerby.format", "passerby.model", "passerby.last_sequence"
_CURRENT_FORMAT = "1"
_NO_COLLECTION, _NOT_LOADED = 100, 101  # Milvus's codes

_log = structlog.get_logger()


class NotLoaded(IndexUnreachable):
    """The server has the collection, but not in its memory."""


class MilvusServer:
    """A connection to a server, and what is said where it fails."""

    def __init__(self, address: MilvusAddress) -> None:
        """Connect. Raises IndexUnreachable."""
        self.address = address
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, each with a stack of calls
        self.client: MilvusClient = self.ask(
            MilvusClient,
            uri=f"http://{address.netloc}",
            user=address.user,
            password=address.password,
            db_name=address.database,
            dedicated=True,  # so that closing it closes nobody else's
            grpc_options=_QUIET,
        )

    def ask(self, what: Callable[..., Any], *args: Any, timeout: float = _SECONDS, **named: Any) -> Any:
        """What a method of the client gives. Raises IndexUnreachable (NotLoaded), or IndexLost: no such collection."""
        try:
            return what(*args, timeout=timeout, **named)
        except MilvusException as error:
            if error.code == _NO_COLLECTION:
                raise IndexLost(f"Milvus at {self.address} has no such collection any more: {error.message}") from error
            kind = NotLoaded if error.code == _NOT_LOADED else IndexUnreachable
            raise kind(self._complaint(error.message)) from error
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise IndexUnreachable(self._complaint(str(error))) from error

    def _complaint(self, reason: str) -> str:
        return (
            f"Milvus at {self.address} does not do its work; see that it runs and that PASSERBY_INDEX_URL names it "
            f"({reason})"
        )


class MilvusIndex:
    """A `VectorIndex` in a collection of a Milvus server; any number of objects may stand for the same one.

    Changes must come from one of them at a time. The number of the last change is written after what it changed, so
    that whoever did not get that far does it once more.
    """

    def __init__(self, server: MilvusServer, collection: str, model_id: str) -> None:
        """The index in a collection that is there; collection: its name, or an alias."""
        self._server = server
        self._client = server.client
        self._collection = collection
        self._model_id = model_id

    @property
    def model_id(self) -> str:
        """See `VectorIndex`."""
        return self._model_id

    @property
    def size(self) -> int:
        """See `VectorIndex`."""
        return self._count("")

    @property
    def last_sequence(self) -> int:
        """See `VectorIndex`."""
        described = self._server.ask(self._client.describe_collection, self._collection)
        return int(described["properties"][_LAST_SEQUENCE])

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """See `VectorIndex`."""
        refused = refused_additions(changes)
        last_sequence = self.last_sequence
        added: dict[int, Addition] = {}
        removed: set[int] = set()
        for change in changes:
            if change.sequence <= last_sequence:
                continue
            last_sequence = change.sequence
            if isinstance(change, Removal):
                added.pop(change.key, None)
                removed.add(change.key)
            elif change not in refused:
                added.setdefault(change.key, change)
        self._remove(removed - added.keys())
        self._put(added.values())
        self._note(last_sequence)
        return tuple(addition.key for addition in refused)

    def load(self, rows: Sequence[Addition], last_sequence: int) -> tuple[int, ...]:
        """See `VectorIndex`."""
        refused = refused_additions(rows)
        self._put({row.key: row for row in rows if row not in refused}.values())
        self._note(last_sequence)
        return tuple(addition.key for addition in refused)

    def search(
        self, query: NDArray[np.float32], which: Filter, top_k: int, min_similarity: float | None = None
    ) -> Found:
        """See `VectorIndex`. Raises ValueError also if `top_k` is above MOST_HITS."""
        query = checked_query(query)
        if not 1 <= top_k <= MOST_HITS:
            raise ValueError(f"top_k is {top_k}: ask for 1 to {MOST_HITS} crops")
        passing = expression(which)
        with ThreadPoolExecutor(2) as beside:  # each may wait for the server's clock
            size = beside.submit(self._count, "")
            passed = beside.submit(self._count, passing) if passing else size
            keys, similarities = self._nearest(query, passing, top_k)
        compared = passed.result()
        if len(keys) < min(top_k, compared):
            keys, similarities = self._nearest_of_all(query, passing)
        similarities = similarities.round(_DECIMALS)
        best = np.lexsort((keys, -similarities))[:top_k]
        if min_similarity is not None:
            best = best[similarities[best] >= min_similarity]
        hits = tuple(map(Hit, keys[best].tolist(), similarities[best].tolist()))
        return Found(hits, compared, size.result())

    def upkeep(self) -> Sequence[int]:
        """See `VectorIndex`. The server does it."""
        return ()

    def close(self) -> None:
        """See `VectorIndex`. The connection is the server's, others use it."""

    def _nearest(
        self, query: NDArray[np.float32], passing: str, top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys and similarities as the server's index finds them: where few crops pass, maybe fewer than there are."""
        (hits,) = self._read(
            self._client.search,
            data=[query],
            filter=passing,
            limit=top_k,
            output_fields=[KEY],
            search_params={"metric_type": _INDEX["metric_type"], "params": {"ef": max(_LEAST_EF, 2 * top_k)}},
        )
        keys = np.array([hit["entity"][KEY] for hit in hits], np.int64)
        return keys, np.array([hit["distance"] for hit in hits], np.float32)

    def _nearest_of_all(
        self, query: NDArray[np.float32], passing: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys and similarities of all crops that pass, whose embeddings are fetched and compared here."""
        keys, similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        rows = self._read(
            self._client.query_iterator, batch_size=_ROWS_AT_ONCE, filter=passing, output_fields=[KEY, VECTOR]
        )
        while batch := self._server.ask(lambda timeout: rows.next()):
            keys.append(np.array([row[KEY] for row in batch], np.int64))
            similarities.append(np.array([row[VECTOR] for row in batch], np.float32) @ query)
        rows.close()
        return np.concatenate(keys), np.concatenate(similarities)

    def _count(self, passing: str) -> int:
        (row,) = self._read(self._client.query, filter=passing, output_fields=["count(*)"])
        return int(row["count(*)"])

    def _read(self, what: Callable[..., Any], **named: Any) -> Any:
        """What a query gives. A server that was started anew may have to load the collection first."""
        try:
            return self._server.ask(what, self._collection, consistency_level=_STRONG, **named)
        except NotLoaded:
            self._server.ask(self._client.load_collection, self._collection)
            return self._server.ask(what, self._collection, consistency_level=_STRONG, **named)

    def _put(self, additions: Iterable[Addition]) -> None:
        rows = [row_of(addition) for addition in additions]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._server.ask(self._client.upsert, self._collection, rows[start : start + _ROWS_AT_ONCE])

    def _remove(self, keys: Iterable[int]) -> None:
        if ids := sorted(keys):
            self._server.ask(self._client.delete, self._collection, ids=ids)

    def _note(self, last_sequence: int) -> None:
        properties = {_LAST_SEQUENCE: str(last_sequence)}
        self._server.ask(self._client.alter_collection_properties, self._collection, properties)


class MilvusHome:
    """See `IndexHome`. The index of one gallery and model is the collection that an alias points to.

    A new one is filled beside it, under a name of its own, until the alias is pointed to that; so all processes go over
    to it at once.
    """

    def __init__(
        self,
        server: MilvusServer,
        gallery_id: str,
        model_id: str,
        turn: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """turn: as `IndexHome.turn`, among all processes that use the gallery."""
        self._server = server
        self._client = server.client
        self._model_id = model_id
        self._alias = f"passerby_{gallery_id}_{hashlib.sha256(model_id.encode()).hexdigest()[:16]}"
        self.turn = turn

    async def existing(self) -> VectorIndex | None:
        """See `IndexHome`."""
        return await asyncio.to_thread(self._existing)

    async def rebuilt(self, fill: Callable[[VectorIndex], Awaitable[None]]) -> VectorIndex:
        """See `IndexHome`."""
        new = await asyncio.to_thread(self._created)
        await fill(MilvusIndex(self._server, new, self._model_id))
        await asyncio.to_thread(self._take_over, new)
        return self._index()

    async def keep(self) -> None:
        """See `IndexHome`. The server does."""

    async def close(self) -> None:
        """See `IndexHome`."""
        await asyncio.to_thread(self._client.close)

    def _index(self) -> MilvusIndex:
        return MilvusIndex(self._server, self._alias, self._model_id)

    def _existing(self) -> MilvusIndex | None:
        if self._current() is None:
            return None
        properties = self._server.ask(self._client.describe_collection, self._alias)["properties"]
        if (properties.get(_FORMAT), properties.get(_MODEL)) != (_CURRENT_FORMAT, self._model_id):
            _log.warning("the collection on Milvus is of another version of Passerby", collection=self._alias)
            return None
        self._server.ask(self._client.load_collection, self._alias, timeout=_SECONDS_TO_LOAD)
        index = self._index()
        _log.info("the index is on Milvus", collection=self._alias, crops=index.size)
        return index

    def _created(self) -> str:
        """An empty collection; those that were never taken over, as who filled them ended, are dropped."""
        current = self._current()
        for name in self._server.ask(self._client.list_collections):
            if name.startswith(f"{self._alias}_") and name != current:
                self._server.ask(self._client.drop_collection, name)
        name = f"{self._alias}_{token_hex(4)}"
        self._create(name, {_FORMAT: _CURRENT_FORMAT, _MODEL: self._model_id, _LAST_SEQUENCE: "0"})
        return name

    def _create(self, name: str, properties: Mapping[str, str]) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=EMBEDDING_DIM)
        schema.add_field(CAPTURED, DataType.INT64)
        for field in (CAMERA, TRACK, PERSON):
            schema.add_field(field, DataType.VARCHAR, max_length=1_024)  # bytes
        schema.add_field(ATTRIBUTES, DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4_096, max_length=32)
        index = self._client.prepare_index_params()
        index.add_index(VECTOR, **_INDEX)
        self._server.ask(
            self._client.create_collection,
            name,
            schema=schema,
            consistency_level=_STRONG,
            properties=dict(properties),
        )
        self._server.ask(self._client.create_index, name, index, sync=False)  # there is nothing yet to wait for
        self._server.ask(self._client.load_collection, name, timeout=_SECONDS_TO_LOAD)

    def _take_over(self, new: str) -> None:
        former = self._current()
        point = self._client.create_alias if former is None else self._client.alter_alias
        self._server.ask(point, new, self._alias)
        if former is not None:
            self._server.ask(self._client.drop_collection, former)

    def _current(self) -> str | None:
        """The collection that the alias points to, if any."""
        if not self._server.ask(self._client.has_collection, self._alias):
            return None
        name: str = self._server.ask(self._client.describe_alias, self._alias)["collection_name"]
        return name
