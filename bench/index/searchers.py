"""Vector indexes behind one interface: Passerby's index in the process, and those it is compared with."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from app.index.concurrent import ConcurrentSearches
from app.index.faiss_index import FaissIndex, Tuning
from app.index.nearest import as_float32, nearest
from app.index.port import Addition, CropColumns, Filter, IndexResult
from app.kit.cores import available_cores
from bench.postgresql import started
from model.architecture import EMBEDDING_DIM

Stored = NDArray[np.float16]
Query = NDArray[np.float32]
Rows = NDArray[np.int64]

_MODEL = "mgn-bench"
_CHUNK_ROWS = 2_000
_SECONDS_TO_BUILD = 7_200
_EFFORTS = (20, 30, 40, 50, 60, 80, 100, 120, 160, 200, 240, 320, 480, 640, 960, 1280)
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are evenly distributed

SHARES = (0.001, 0.01, 0.1, 0.5)
"""The share of the gallery that each camera in a filter has; the rest is of one more camera."""


class Searcher(Protocol):
    """An index of embeddings by row number."""

    efforts: Sequence[int]
    """Values of the search parameter that trades speed for recall, ascending."""

    def build(self, embeddings: Stored) -> None:
        """Index a gallery `(N, 2048)`."""

    def search(self, query: Query, count: int, effort: int) -> Rows:
        """The rows most similar to a query `(2048,)`."""

    def throughput(self, count: int, effort: int, queries: NDArray[np.float32], clients: int, seconds: float) -> float:
        """Queries a second of several concurrent clients, each of which asks one query at a time."""

        def ask(client: int) -> int:
            done = 0
            while time.monotonic() < end:
                self.search(queries[(client * 131 + done) % len(queries)], count, effort)
                done += 1
            return done

        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as threads:
            return sum(threads.map(ask, range(clients))) / seconds

    def memory(self) -> float:
        """Resident memory in MB of all processes of the index."""


def camera_of(rows: Rows) -> list[str]:
    """The camera of each row; deterministic."""
    draws = rows * _GOLDEN % 1
    places = np.searchsorted(np.cumsum(SHARES), draws)
    return [f"camera {SHARES[place]}" if place < len(SHARES) else "camera of the rest" for place in places.tolist()]


class Passerby(Searcher):
    """Passerby's index in the process, and the exact comparison of its candidates.

    The service reads the embeddings of the candidates from the database; here they come from the gallery's mapped file.
    The key of a row is its number plus one.
    """

    efforts: Sequence[int] = (0,)

    def __init__(self, tuning: Tuning | None = None) -> None:
        self.index = FaissIndex(_MODEL, tuning)
        self._searches = ConcurrentSearches()

    def build(self, embeddings: Stored) -> None:
        """Load crops as the index sync does from the rows of the database."""
        self.embeddings = embeddings
        if sampled := self.index.sample_size(len(embeddings)):
            chosen = np.random.default_rng(0).permutation(len(embeddings))[:sampled]
            self.index.prepare(embeddings[np.sort(chosen)][np.argsort(np.argsort(chosen))], len(embeddings))
        for rows in _chunks(len(embeddings)):
            self.index.load(additions(embeddings, rows), 0)
        self.index.maintain()

    def search(self, query: Query, count: int, effort: int) -> Rows:
        """Search without a filter."""
        return self.search_in(query, count, Filter())

    def search_in(self, query: Query, count: int, crop_filter: Filter) -> Rows:
        """Search with a filter."""
        (found,) = self.index.search(query[None], crop_filter, count)
        return self._compared(query, found, count)

    async def search_among_others(self, query: Query, count: int) -> Rows:
        """Search without a filter as a request of the service does, among concurrent ones."""
        return self._compared(query, await self._searches.search(self.index, query, Filter(), count), count)

    def _compared(self, query: Query, found: IndexResult, count: int) -> Rows:
        """The best of the candidates by their embeddings."""
        rows = found.keys - 1
        best: Rows = nearest(query[None], as_float32(self.embeddings[rows]), None, count)[1][0]
        return rows[best]

    def throughput(self, count: int, effort: int, queries: NDArray[np.float32], clients: int, seconds: float) -> float:
        """See Searcher. The clients are coroutines of one event loop, as in the service."""

        async def ask(client: int) -> int:
            done = 0
            while time.monotonic() < end:
                await self.search_among_others(queries[(client * 131 + done) % len(queries)], count)
                done += 1
            return done

        async def all_ask() -> int:
            return sum(await asyncio.gather(*(ask(client) for client in range(clients))))

        end = time.monotonic() + seconds
        return asyncio.run(all_ask()) / seconds

    def memory(self) -> float:
        """Without the mapped files, whose pages belong to the page cache."""
        return own_memory()


class Flat(Searcher):
    """FAISS's exact index."""

    efforts: Sequence[int] = (0,)

    def build(self, embeddings: Stored) -> None:
        self._index = faiss.IndexFlatIP(EMBEDDING_DIM)
        for rows in _chunks(len(embeddings)):
            self._index.add(embeddings[rows].astype(np.float32))

    def search(self, query: Query, count: int, effort: int) -> Rows:
        rows: Rows = self._index.search(query[None], count)[1][0]
        return rows

    def memory(self) -> float:
        return own_memory()


class Hnswlib(Searcher):
    """hnswlib in single precision, the only one it supports."""

    efforts: Sequence[int] = _EFFORTS

    def build(self, embeddings: Stored) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", EMBEDDING_DIM)
        self._index.init_index(len(embeddings), ef_construction=100, M=16, random_seed=1)
        for rows in _chunks(len(embeddings)):
            self._index.add_items(embeddings[rows].astype(np.float32), rows, num_threads=available_cores())

    def search(self, query: Query, count: int, effort: int) -> Rows:
        if self._index.ef != effort:
            self._index.set_ef(effort)
        rows: Rows = self._index.knn_query(query, count, num_threads=1)[0][0].astype(np.int64)
        return rows

    def memory(self) -> float:
        return own_memory()


class Usearch(Searcher):
    """usearch in half precision, its default for float16 embeddings."""

    efforts: Sequence[int] = _EFFORTS

    def build(self, embeddings: Stored) -> None:
        import usearch.index

        self._index: Any = usearch.index.Index(
            ndim=EMBEDDING_DIM, metric="ip", dtype="f16", connectivity=16, expansion_add=100
        )
        for rows in _chunks(len(embeddings)):
            self._index.add(rows, np.ascontiguousarray(embeddings[rows]), threads=available_cores())

    def search(self, query: Query, count: int, effort: int) -> Rows:
        if self._index.expansion_search != effort:
            self._index.expansion_search = effort
        found = self._index.search(query.astype(np.float16), count, threads=1)
        return np.asarray(found.keys, np.int64)

    def memory(self) -> float:
        return own_memory()


class MilvusLite(Searcher):
    """Milvus Lite with HNSW."""

    efforts: Sequence[int] = _EFFORTS

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, embeddings: Stored) -> None:
        from pymilvus import DataType, MilvusClient

        options = {"grpc.keepalive_time_ms": 2**31 - 1}  # its server closes connections that ping during long work
        self._client: Any = MilvusClient(str(self._folder / "bench.db"), grpc_options=options)
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=EMBEDDING_DIM)
        self._client.create_collection("bench", schema=schema)
        for rows in _chunks(len(embeddings)):
            vectors = embeddings[rows].astype(np.float32)
            data = [{"row": int(row), "vector": vector} for row, vector in zip(rows, vectors, strict=True)]
            self._client.insert("bench", data)
        self._client.flush("bench")
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 100})
        self._client.create_index("bench", index, timeout=_SECONDS_TO_BUILD)
        self._client.load_collection("bench", timeout=_SECONDS_TO_BUILD)

    def search(self, query: Query, count: int, effort: int) -> Rows:
        found = self._client.search(
            "bench", [query.tolist()], limit=count, search_params={"params": {"ef": max(effort, count)}}
        )
        return np.array([hit["row"] for hit in found[0]], np.int64)

    def memory(self) -> float:
        """Including the server, a separate process."""
        return own_memory() + sum(_resident(child) for child in psutil.Process().children(recursive=True))


class Pgvector(Searcher):
    """PostgreSQL with pgvector: HNSW over halfvec."""

    efforts: Sequence[int] = (*_EFFORTS[:-1], 1000)

    def __init__(self, folder: Path) -> None:
        self._server = started(folder / "postgresql")

    def build(self, embeddings: Stored) -> None:
        import psycopg

        def connect() -> psycopg.Connection:
            return psycopg.connect(self._server.get_uri(), autocommit=True)

        self._connect = connect
        self._connections: dict[int, Any] = {}
        with self._connect() as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(f"CREATE TABLE bench (row bigint PRIMARY KEY, vector halfvec({EMBEDDING_DIM}))")
            with connection.cursor().copy("COPY bench FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "bytea"])
                for rows in _chunks(len(embeddings)):
                    for row in rows.tolist():
                        copy.write_row((row, _halfvec(embeddings[row])))
            connection.execute("SET maintenance_work_mem = '6GB'")
            connection.execute(
                "CREATE INDEX ON bench USING hnsw (vector halfvec_ip_ops) WITH (m = 16, ef_construction = 100)"
            )

    def search(self, query: Query, count: int, effort: int) -> Rows:
        thread = threading.get_ident()
        if thread not in self._connections:
            self._connections[thread] = self._connect()
        connection = self._connections[thread]
        connection.execute(f"SET hnsw.ef_search = {effort}")
        vector = "[" + ",".join(f"{value:.6f}" for value in query.tolist()) + "]"
        found = connection.execute(
            f"SELECT row FROM bench ORDER BY vector <#> %s::halfvec({EMBEDDING_DIM}) LIMIT %s", (vector, count)
        )
        return np.array([row for (row,) in found], np.int64)

    def memory(self) -> float:
        """Of the server's processes; shared buffers are counted once (PSS)."""
        server = psutil.Process(self._server.get_pid())
        processes = [server, *server.children(recursive=True)]
        return float(sum(process.memory_full_info().pss for process in processes)) / 1e6


def additions(embeddings: Stored, rows: Rows) -> list[Addition]:
    """Rows as additions to the gallery."""
    cameras = camera_of(rows)
    return [
        Addition(0, row + 1, embeddings[row], CropColumns(camera, row))
        for row, camera in zip(rows.tolist(), cameras, strict=True)
    ]


def own_memory() -> float:
    """Resident memory of this process in MB, without memory-mapped files."""

    return _resident(psutil.Process())


def _resident(process: psutil.Process) -> float:
    memory = process.memory_info()
    return float(memory.rss - memory.shared) / 1e6


def _halfvec(embedding: Stored) -> bytes:
    """pgvector's binary form: the dimensions, an unused word, and the numbers, all big-endian."""
    return EMBEDDING_DIM.to_bytes(2, "big") + bytes(2) + embedding.astype(">f2").tobytes()


def _chunks(count: int) -> Iterator[Rows]:
    for start in range(0, count, _CHUNK_ROWS):
        yield np.arange(start, min(count, start + _CHUNK_ROWS))
