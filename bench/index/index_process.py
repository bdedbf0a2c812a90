"""A vector index in a separate process, so that its memory and threads can be measured."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.index.gallery import Gallery
from bench.index.searchers import Query, Rows, Searcher
from bench.rounds import milliseconds

COUNT = 10
"""The matches of a search (top_k)."""


class IndexProcess:
    """An index of a gallery in a separate process. Each method runs there; an exception becomes a RuntimeError here."""

    def __init__(self, kind: type[Searcher], gallery: Gallery, name: str) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, remote_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote_end, kind, gallery.folder), daemon=False)
        self._process.start()
        remote_end.close()
        try:
            self.seconds_to_build = float(self._call("build"))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def recall(self, queries: slice, effort: int) -> float:
        """The recall on a slice of the gallery's queries."""
        return float(self._call("recall", queries, effort))

    def least_effort(self, queries: slice, recall: float) -> int | None:
        """The least effort that reaches a recall, or None."""
        effort: int | None = self._call("least_effort", queries, recall)
        return effort

    def latencies(self, queries: slice, effort: int) -> list[float]:
        """Milliseconds of each query, run one after the other."""
        latencies: list[float] = self._call("latencies", queries, effort)
        return latencies

    def throughput(self, effort: int, clients: int, seconds: float) -> float:
        """Queries a second of several concurrent clients."""
        return float(self._call("throughput", effort, clients, seconds))

    def memory(self) -> float:
        """Resident memory in MB."""
        return float(self._call("memory"))

    def _call(self, method: str, *arguments: Any) -> Any:
        self._connection.send((method, arguments))
        outcome, value = self._connection.recv()
        if outcome == "raised":
            raise RuntimeError(f"{self.name}: {value}")
        return value


class _Calls:
    """The methods of `IndexProcess`, in the separate process."""

    def __init__(self, searcher: Searcher, gallery: Gallery) -> None:
        self._searcher = searcher
        self._gallery = gallery

    def build(self) -> float:
        began = time.perf_counter()
        self._searcher.build(self._gallery.embeddings)
        return time.perf_counter() - began

    def recall(self, queries: slice, effort: int) -> float:
        return recall_of(
            lambda query: self._searcher.search(query, COUNT, effort),
            self._gallery.queries[queries],
            self._gallery.true[queries],
        )

    def least_effort(self, queries: slice, recall: float) -> int | None:
        return next((effort for effort in self._searcher.efforts if self.recall(queries, effort) >= recall), None)

    def latencies(self, queries: slice, effort: int) -> list[float]:
        return milliseconds(lambda query: self._searcher.search(query, COUNT, effort), self._gallery.queries[queries])

    def throughput(self, effort: int, clients: int, seconds: float) -> float:
        return self._searcher.throughput(COUNT, effort, self._gallery.queries, clients, seconds)

    def memory(self) -> float:
        return self._searcher.memory()


def recall_of(search: Callable[[Query], Rows], queries: NDArray[np.float32], true: NDArray[np.int64]) -> float:
    """The share of the true `COUNT` best matches that is found. true: `(Q, N)` rows, best first."""
    hits = sum(len(np.intersect1d(search(query), rows[:COUNT])) for query, rows in zip(queries, true, strict=True))
    return hits / (COUNT * len(queries))


def _serve(connection: Connection, kind: type[Searcher], folder: Path) -> None:
    gallery = Gallery.open(folder)
    calls = _Calls(kind(folder), gallery)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("returned", getattr(calls, method)(*arguments)))
        except Exception as error:
            connection.send(("raised", f"{type(error).__name__}: {error}"))
