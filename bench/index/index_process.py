"""A vector index in a separate process, so that its memory and threads can be measured."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.index.gallery import Gallery
from bench.index.searchers import Query, Rows, Searcher

COUNT = 10
"""Matches of a search (top_k)."""

Make = Callable[[Gallery], Searcher]


class IndexProcess:
    """An index of a gallery in a separate process. Each method runs there; an exception becomes a RuntimeError here."""

    def __init__(self, make: Make, gallery: Gallery, name: str) -> None:
        """make: a module-level function, as it is pickled."""
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, gallery.folder), daemon=False)
        self._process.start()
        there.close()
        try:
            self.seconds_to_build = float(self._ask("built"))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.close()
        self._process.join()

    def recall(self, queries: slice, effort: int) -> float:
        """Recall for a slice of the gallery's queries."""
        return float(self._ask("recall", queries, effort))

    def least_effort(self, queries: slice, recall: float) -> int | None:
        """The least effort that reaches a recall, or None."""
        effort: int | None = self._ask("least_effort", queries, recall)
        return effort

    def latencies(self, queries: slice, effort: int) -> list[float]:
        """Milliseconds of each query, run one after the other."""
        found: list[float] = self._ask("latencies", queries, effort)
        return found

    def throughput(self, effort: int, clients: int, seconds: float) -> float:
        """Queries a second of several concurrent clients."""
        return float(self._ask("throughput", effort, clients, seconds))

    def memory(self) -> float:
        """Resident memory in MB."""
        return float(self._ask("memory"))

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._here.send((method, arguments))
        outcome, value = self._here.recv()
        if outcome == "raised":
            raise RuntimeError(f"{self.name}: {value}")
        return value


class _Requests:
    """The methods of `IndexProcess`, in the separate process."""

    def __init__(self, searcher: Searcher, gallery: Gallery) -> None:
        self._searcher = searcher
        self._gallery = gallery

    def built(self) -> float:
        started = time.perf_counter()
        self._searcher.build(self._gallery.embeddings)
        return time.perf_counter() - started

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


def milliseconds(search: Callable[[Query], object], queries: NDArray[np.float32]) -> list[float]:
    """Milliseconds of each query."""
    found = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        found.append(1000 * (time.perf_counter() - started))
    return found


def recall_of(search: Callable[[Query], Rows], queries: NDArray[np.float32], true: NDArray[np.int64]) -> float:
    """Recall: the share of the true `COUNT` best matches that is found."""

    found = sum(
        len(set(search(query).tolist()) & set(rows[:COUNT].tolist())) for query, rows in zip(queries, true, strict=True)
    )
    return found / (COUNT * len(queries))


def _serve(connection: Connection, make: Make, folder: Any) -> None:
    gallery = Gallery.open(folder)
    answers = _Requests(make(gallery), gallery)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("returned", getattr(answers, method)(*arguments)))
        except Exception as error:
            connection.send(("raised", f"{type(error).__name__}: {error}"))
