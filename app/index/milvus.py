"""The index on a Milvus server that several processes share: a collection for each gallery and model."""

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

from app.index.checks import checked_queries, refused_keys
from app.index.milvus_rows import ATTRIBUTES, CAMERA, CAPTURED, KEY, PERSON, TRACK, VECTOR, expression, row_of
from app.index.port import (
    Addition,
    Change,
    Filter,
    IndexLost,
    IndexResult,
    IndexUnreachable,
    Removal,
    VectorIndex,
)
from app.milvus_address import MilvusAddress
from model.architecture import EMBEDDING_DIM

MAX_HITS = 16_384
"""Milvus's limit of results of a search."""

_ROWS_PER_CALL = 1_000  # 8.4 MB, well below a server's limit of a message
_TIMEOUT_SECONDS = 10.0
_LOAD_TIMEOUT_SECONDS = 600.0  # for loading a collection into the server's memory
_STRONG = "Strong"  # a read sees all earlier writes of all processes

# Servers close a connection that pings too often; each call has a timeout, so no pings are needed.
_NO_KEEPALIVE = {"grpc.keepalive_time_ms": 2**31 - 1}

_INDEX = {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 32, "efConstruction": 200}}
_MIN_EF = 256  # size of HNSW's candidate list

_DECIMALS = 6  # with more digits, similarities of equal embeddings differ

_FORMAT, _MODEL, _LAST_SEQUENCE = "passerby.format", "passerby.model", "passerby.last_sequence"
_CURRENT_FORMAT = "1"
_NO_COLLECTION, _NOT_LOADED = 100, 101  # Milvus's error codes

_log = structlog.get_logger()


class NotLoaded(IndexUnreachable):
    """The collection is not loaded into the server's memory."""


class MilvusServer:
    """A connection to a server, whose errors are translated to those of the index port."""

    def __init__(self, address: MilvusAddress) -> None:
        """Connect. Raises IndexUnreachable."""
        self.address = address
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of each exception that it raises
        self.client: MilvusClient = self.call(
            MilvusClient,
            uri=f"http://{address.netloc}",
            user=address.user,
            password=address.password,
            db_name=address.database,
            dedicated=True,  # a connection that no other client shares, so that it can be closed
            grpc_options=_NO_KEEPALIVE,
        )

    def call(self, method: Callable[..., Any], *args: Any, timeout: float = _TIMEOUT_SECONDS, **kwargs: Any) -> Any:
        """Call a method of the client. Raises IndexUnreachable (or NotLoaded), or IndexLost: no such collection."""
        try:
            return method(*args, timeout=timeout, **kwargs)
        except MilvusException as error:
            if error.code == _NO_COLLECTION:
                raise IndexLost(f"Milvus at {self.address} has no such collection any more: {error.message}") from error
            kind = NotLoaded if error.code == _NOT_LOADED else IndexUnreachable
            raise kind(self._message(error.message)) from error
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise IndexUnreachable(self._message(str(error))) from error

    def _message(self, reason: str) -> str:
        return (
            f"Milvus at {self.address} does not work; check that it runs and that PASSERBY_INDEX_URL is its address "
            f"({reason})"
        )


class MilvusIndex:
    """A `VectorIndex` in a collection of a Milvus server. Several objects may use the same collection.

    Only one of them at a time may apply changes. `last_sequence` is written after the changes themselves, so a process
    that is killed in between applies them again, which is harmless.
    """

    def __init__(self, server: MilvusServer, collection: str, model_id: str) -> None:
        """collection: the name of an existing collection, or an alias."""
        self.server = server
        self._client = server.client
        self.collection = collection
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
        described = self.server.call(self._client.describe_collection, self.collection)
        return int(described["properties"][_LAST_SEQUENCE])

    @property
    def outgrown(self) -> bool:
        """See `VectorIndex`. The server's index grows with the collection."""
        return False

    def sample_size(self, crops: int) -> int:
        """See `VectorIndex`."""
        return 0

    def prepare(self, sample: NDArray[np.float16], crops: int) -> None:
        """See `VectorIndex`. The server needs no preparation."""

    def apply(self, changes: Sequence[Change]) -> frozenset[int]:
        """See `VectorIndex`."""
        refused = refused_keys(changes)
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
            elif change.key not in refused:
                added[change.key] = change
        self._remove(removed - added.keys())
        self._upsert(added.values())
        self._write_last_sequence(last_sequence)
        return refused

    def load(self, rows: Sequence[Addition], last_sequence: int) -> frozenset[int]:
        """See `VectorIndex`."""
        refused = refused_keys(rows)
        self._upsert({row.key: row for row in rows if row.key not in refused}.values())
        self._write_last_sequence(last_sequence)
        return refused

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[IndexResult]:
        """See `VectorIndex`. Raises ValueError also if `top_k` is above MAX_HITS."""
        queries = checked_queries(queries)
        if not 1 <= top_k <= MAX_HITS:
            raise ValueError(f"top_k is {top_k}: ask for 1 to {MAX_HITS} crops")
        passing = expression(crop_filter)
        with ThreadPoolExecutor(2) as threads:  # strong reads may wait for the server's clock, so they run in parallel
            size = threads.submit(self._count, "")
            passed = threads.submit(self._count, passing) if passing else size
            found = self._nearest(queries, passing, top_k)
        compared = passed.result()
        results = []
        for query, (keys, similarities) in zip(queries, found, strict=True):
            if len(keys) < min(top_k, compared):
                keys, similarities = self._brute_force(query, passing)
            similarities = similarities.round(_DECIMALS)
            best = np.lexsort((keys, -similarities))[:top_k]
            results.append(IndexResult(keys[best], similarities[best], compared, size.result()))
        return results

    def maintain(self) -> None:
        """See `VectorIndex`. The server runs its own maintenance."""

    def close(self) -> None:
        """See `VectorIndex`. Leaves the connection open, as other objects use it."""

    def _nearest(
        self, queries: NDArray[np.float32], passing: str, top_k: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """For each query, keys and similarities from the server's HNSW index; if few crops pass, it may miss some."""
        found = self._read(
            self._client.search,
            data=list(queries),
            filter=passing,
            limit=top_k,
            output_fields=[KEY],
            search_params={"metric_type": _INDEX["metric_type"], "params": {"ef": max(_MIN_EF, 2 * top_k)}},
        )
        return [
            (
                np.array([hit["entity"][KEY] for hit in hits], np.int64),
                np.array([hit["distance"] for hit in hits], np.float32),
            )
            for hits in found
        ]

    def _brute_force(self, query: NDArray[np.float32], passing: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys and similarities of all crops that pass: fetches their embeddings and compares them here."""
        keys, similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        rows = self._read(
            self._client.query_iterator, batch_size=_ROWS_PER_CALL, filter=passing, output_fields=[KEY, VECTOR]
        )
        while batch := self.server.call(lambda timeout: rows.next()):
            keys.append(np.array([row[KEY] for row in batch], np.int64))
            similarities.append(np.array([row[VECTOR] for row in batch], np.float32) @ query)
        rows.close()
        return np.concatenate(keys), np.concatenate(similarities)

    def _count(self, passing: str) -> int:
        (row,) = self._read(self._client.query, filter=passing, output_fields=["count(*)"])
        return int(row["count(*)"])

    def _read(self, method: Callable[..., Any], **kwargs: Any) -> Any:
        """Run a query; load the collection first if the server was restarted."""
        try:
            return self.server.call(method, self.collection, consistency_level=_STRONG, **kwargs)
        except NotLoaded:
            self.server.call(self._client.load_collection, self.collection)
            return self.server.call(method, self.collection, consistency_level=_STRONG, **kwargs)

    def _upsert(self, additions: Iterable[Addition]) -> None:
        rows = [row_of(addition) for addition in additions]
        for start in range(0, len(rows), _ROWS_PER_CALL):
            self.server.call(self._client.upsert, self.collection, rows[start : start + _ROWS_PER_CALL])

    def _remove(self, keys: Iterable[int]) -> None:
        if ids := sorted(keys):
            self.server.call(self._client.delete, self.collection, ids=ids)

    def _write_last_sequence(self, last_sequence: int) -> None:
        properties = {_LAST_SEQUENCE: str(last_sequence)}
        self.server.call(self._client.alter_collection_properties, self.collection, properties)


class MilvusIndexStorage:
    """See `IndexStorage`. The index of a gallery and a model is the collection that an alias points to.

    A rebuild fills a second collection and then switches the alias, so all processes switch at once.
    """

    def __init__(
        self,
        server: MilvusServer,
        gallery_id: str,
        model_id: str,
        write_lock: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """write_lock: see `IndexStorage`; a lock among all processes that use the gallery."""
        self.server = server
        self._client = server.client
        self._model_id = model_id
        self.alias = f"passerby_{gallery_id}_{hashlib.sha256(model_id.encode()).hexdigest()[:16]}"
        self.write_lock = write_lock

    async def open(self) -> VectorIndex | None:
        """See `IndexStorage`."""
        return await asyncio.to_thread(self._open)

    async def discard(self) -> None:
        """See `IndexStorage`. A rebuild replaces the collection, which other processes may still search."""

    async def rebuild(self, fill: Callable[[VectorIndex], Awaitable[None]]) -> VectorIndex:
        """See `IndexStorage`."""
        new = await asyncio.to_thread(self._create_collection)
        await fill(MilvusIndex(self.server, new, self._model_id))
        await asyncio.to_thread(self._switch_alias, new)
        return self._index()

    async def save_if_due(self, index: VectorIndex) -> None:
        """See `IndexStorage`. The server stores each change."""

    async def close(self, index: VectorIndex | None) -> None:
        """See `IndexStorage`."""
        await asyncio.to_thread(self._client.close)

    def _index(self) -> MilvusIndex:
        return MilvusIndex(self.server, self.alias, self._model_id)

    def _open(self) -> MilvusIndex | None:
        if self._current() is None:
            return None
        properties = self.server.call(self._client.describe_collection, self.alias)["properties"]
        if (properties.get(_FORMAT), properties.get(_MODEL)) != (_CURRENT_FORMAT, self._model_id):
            _log.warning("the collection on Milvus has the format of another version", collection=self.alias)
            return None
        self.server.call(self._client.load_collection, self.alias, timeout=_LOAD_TIMEOUT_SECONDS)
        index = self._index()
        _log.info("the index is on Milvus", collection=self.alias, crops=index.size)
        return index

    def _create_collection(self) -> str:
        """Create an empty collection, and drop those of earlier rebuilds that did not finish."""
        current = self._current()
        for name in self.server.call(self._client.list_collections):
            if name.startswith(f"{self.alias}_") and name != current:
                self.server.call(self._client.drop_collection, name)
        name = f"{self.alias}_{token_hex(4)}"
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
        self.server.call(
            self._client.create_collection,
            name,
            schema=schema,
            consistency_level=_STRONG,
            properties=dict(properties),
        )
        self.server.call(self._client.create_index, name, index, sync=False)  # the collection is empty
        self.server.call(self._client.load_collection, name, timeout=_LOAD_TIMEOUT_SECONDS)

    def _switch_alias(self, new: str) -> None:
        former = self._current()
        set_alias = self._client.create_alias if former is None else self._client.alter_alias
        self.server.call(set_alias, new, self.alias)
        if former is not None:
            self.server.call(self._client.drop_collection, former)

    def _current(self) -> str | None:
        """The collection that the alias points to, if any."""
        if not self.server.call(self._client.has_collection, self.alias):
            return None
        name: str = self.server.call(self._client.describe_alias, self.alias)["collection_name"]
        return name
