"""Vector indexes behind one interface: Passerby's and its peers."""

import asyncio
import math
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from app.index.concurrent import ConcurrentSearches
from app.index.faiss_index import FaissIndex, Tuning
from app.index.nearest import as_float32, nearest
from app.index.port import Addition, CropColumns, Filter, IndexResult
from app.kit.cores import available_cores
from bench.postgresql import start_postgresql
from model.architecture import EMBEDDING_DIM

Stored = NDArray[np.float16]
Query = NDArray[np.float32]
Rows = NDArray[np.int64]

_MODEL = "mgn-bench"
_CHUNK_ROWS = 2_000
_BUILD_TIMEOUT_SECONDS = 7_200
_EFFORTS = (20, 30, 40, 50, 60, 80, 100, 120, 160, 200, 240, 320, 480, 640, 960, 1280)
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are evenly distributed

SHARES = (0.001, 0.01, 0.1, 0.5)
"""The shares of the gallery of the cameras that filters select; one more camera has the rest."""


class Searcher(ABC):
    """An index of embeddings by row number."""

    efforts: Sequence[int]
    """Values of the search parameter that trades speed for recall, ascending."""

    def __init__(self, folder: Path) -> None:
        """folder: of the gallery, where an index may keep files."""
        self.folder = folder

    @abstractmethod
    def build(self, embeddings: Stored) -> None:
        """Index a gallery `(N, 2048)`."""

    @abstractmethod
    def search(self, query: Query, count: int, effort: int) -> Rows:
        """The rows most similar to a query `(2048,)`."""

    def throughput(self, count: int, effort: int, queries: NDArray[np.float32], clients: int, seconds: float) -> float:
        """Queries a second of several concurrent clients, each of which sends one query at a time."""

        def search(client: int) -> int:
            done = 0
            while time.monotonic() < end:
                self.search(queries[(client * 131 + done) % len(queries)], count, effort)
                done += 1
            return done

        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as threads:
            return sum(threads.map(search, range(clients))) / seconds

    def memory(self) -> float:
        """Resident memory in MB of all processes of the index, without memory-mapped files."""
        return _resident(psutil.Process())


def camera_of(rows: Rows) -> list[str]:
    """The camera of each row; deterministic."""
    draws = rows * _GOLDEN % 1
    places = np.searchsorted(np.cumsum(SHARES), draws)
    return [f"camera {SHARES[place]}" if place < len(SHARES) else "camera of the rest" for place in places.tolist()]


class Passerby(Searcher):
    """Passerby's index, and the exact comparison of its candidates.

    The service reads the embeddings of the candidates from the database; here, from the gallery's mapped file. The key
    of a row is its number plus one.
    """

    efforts: Sequence[int] = (0,)

    def __init__(self, folder: Path, tuning: Tuning | None = None) -> None:
        super().__init__(folder)
        self.index = FaissIndex(_MODEL, tuning)
        self._searches = ConcurrentSearches()

    def build(self, embeddings: Stored) -> None:
        """Load the crops as the index sync loads the database's rows."""
        self.embeddings = embeddings
        if sampled := self.index.sample_size(len(embeddings)):
            chosen = np.random.default_rng(0).permutation(len(embeddings))[:sampled]
            ranks = np.argsort(np.argsort(chosen))
            sample = embeddings[np.sort(chosen)][ranks]  # `embeddings[chosen]`, but read in the order of the file
            self.index.prepare(sample, len(embeddings))
        for rows in _chunks(len(embeddings)):
            self.index.load(_additions(embeddings, rows), 0)
        self.index.maintain()

    def search(self, query: Query, count: int, effort: int) -> Rows:
        """Search without a filter."""
        return self.search_in(query, count, Filter())

    def search_in(self, query: Query, count: int, crop_filter: Filter) -> Rows:
        """Search with a filter."""
        (candidates,) = self.index.search(query[None], crop_filter, count)
        return self._refine(query, candidates, count)

    async def search_concurrently(self, query: Query, count: int) -> Rows:
        """Search without a filter, as one of several concurrent requests of the service."""
        return self._refine(query, await self._searches.search(self.index, query, Filter(), count), count)

    def _refine(self, query: Query, candidates: IndexResult, count: int) -> Rows:
        """The best candidates by the exact comparison."""
        rows = candidates.keys - 1
        best: Rows = nearest(query[None], as_float32(self.embeddings[rows]), None, count)[1][0]
        return rows[best]

    def throughput(self, count: int, effort: int, queries: NDArray[np.float32], clients: int, seconds: float) -> float:
        """See Searcher. The clients are coroutines of one event loop, as in the service."""

        async def search(client: int) -> int:
            done = 0
            while time.monotonic() < end:
                await self.search_concurrently(queries[(client * 131 + done) % len(queries)], count)
                done += 1
            return done

        async def search_with_all_clients() -> int:
            return sum(await asyncio.gather(*(search(client) for client in range(clients))))

        end = time.monotonic() + seconds
        return asyncio.run(search_with_all_clients()) / seconds


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


class MilvusLite(Searcher):
    """Milvus Lite with HNSW."""

    efforts: Sequence[int] = _EFFORTS

    def __init__(self, folder: Path) -> None:
        super().__init__(empty_folder(folder / "milvus"))

    def build(self, embeddings: Stored) -> None:
        from pymilvus import DataType, MilvusClient

        options = {"grpc.keepalive_time_ms": 2**31 - 1}  # its server closes connections that ping during long work
        self._client: Any = MilvusClient(str(self.folder / "bench.db"), grpc_options=options)
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
        self._client.create_index("bench", index, timeout=_BUILD_TIMEOUT_SECONDS)
        self._client.load_collection("bench", timeout=_BUILD_TIMEOUT_SECONDS)

    def search(self, query: Query, count: int, effort: int) -> Rows:
        found = self._client.search(
            "bench", [query.tolist()], limit=count, search_params={"params": {"ef": max(effort, count)}}
        )
        return np.array([hit["row"] for hit in found[0]], np.int64)

    def memory(self) -> float:
        """Including the server, a separate process."""
        return super().memory() + sum(_resident(child) for child in psutil.Process().children(recursive=True))


class Pgvector(Searcher):
    """PostgreSQL with pgvector: HNSW over halfvec."""

    efforts: Sequence[int] = (*_EFFORTS[:-1], 1000)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = start_postgresql(empty_folder(folder / "pgvector") / "postgresql")

    def build(self, embeddings: Stored) -> None:
        import psycopg

        self._connect = partial(psycopg.connect, self._server.get_uri(), autocommit=True)
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
        """Of the server's processes, by PSS, which counts shared buffers once."""
        server = psutil.Process(self._server.get_pid())
        processes = [server, *server.children(recursive=True)]
        return float(sum(process.memory_full_info().pss for process in processes)) / 1e6


def _additions(embeddings: Stored, rows: Rows) -> list[Addition]:
    """Rows as additions to the gallery."""
    cameras = camera_of(rows)
    return [
        Addition(0, row + 1, embeddings[row], CropColumns(camera, row))
        for row, camera in zip(rows.tolist(), cameras, strict=True)
    ]


def _resident(process: psutil.Process) -> float:
    """Megabytes without memory-mapped files, whose pages belong to the page cache."""
    memory = process.memory_info()
    return float(memory.rss - memory.shared) / 1e6


def empty_folder(folder: Path) -> Path:
    """Create an empty folder in place of an existing one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _halfvec(embedding: Stored) -> bytes:
    """pgvector's binary form: the dimensions, an unused word, and the numbers, all big-endian."""
    return EMBEDDING_DIM.to_bytes(2, "big") + bytes(2) + embedding.astype(">f2").tobytes()


def _chunks(count: int) -> Iterator[Rows]:
    for start in range(0, count, _CHUNK_ROWS):
        yield np.arange(start, min(count, start + _CHUNK_ROWS))
