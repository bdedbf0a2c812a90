"""Indexes on a Milvus server for tests, each in its own collection, which is dropped when the test ends."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from secrets import token_hex

from app.index.milvus import MilvusIndex, MilvusIndexStorage, MilvusServer
from app.index.port import VectorIndex
from app.milvus_address import MilvusAddress
from tests.app.index.index_factories import MODEL


async def nothing(_: VectorIndex) -> None:
    """Fills an index with nothing."""


@contextmanager
def storage_on(url: str, gallery_id: str | None = None, model_id: str = MODEL) -> Iterator[MilvusIndexStorage]:
    """Index storage on a server, for a gallery of this test only; its collections are dropped at the end."""
    gallery_id = gallery_id or f"test{token_hex(8)}"
    server = MilvusServer(MilvusAddress.parse(url))
    try:
        yield MilvusIndexStorage(server, gallery_id, model_id, nullcontext)
    finally:
        server.client.close()
        cleaning = MilvusServer(MilvusAddress.parse(url))
        drop_all_of(cleaning, gallery_id)
        cleaning.client.close()


@contextmanager
def index_on(url: str) -> Iterator[VectorIndex]:
    """An empty index on a server."""
    with storage_on(url) as storage:
        yield asyncio.run(storage.rebuild(nothing))


def same_index(url: str, index: VectorIndex) -> VectorIndex:
    """Another object for the same index, as another process would have."""

    assert isinstance(index, MilvusIndex)
    return MilvusIndex(MilvusServer(MilvusAddress.parse(url)), index.collection, index.model_id)


def collections_of(server: MilvusServer, gallery_id: str) -> list[str]:
    """The names of a gallery's collections."""
    return [name for name in server.client.list_collections() if name.startswith(f"passerby_{gallery_id}_")]


def drop_all_of(server: MilvusServer, gallery_id: str) -> None:
    """Drop a gallery's collections and the aliases that point to them."""
    for name in collections_of(server, gallery_id):
        for alias in server.client.list_aliases(name)["aliases"]:
            server.client.drop_alias(alias)
        server.client.drop_collection(name)
