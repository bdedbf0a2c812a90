"""Asking a vector index in a process of its own, so that its memory and its threads are nobody else's."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.index.gallery import Gallery
from bench.index.searchers import Query, Rows, Searcher

COUNT = 10
"""Matches that are asked for."""

Make = Callable[[Gallery], Searcher]


class Asked:
    """An index of a gallery, ready to be asked. Its methods run in its process, and raise what they raise there."""

    def __init__(self, make: Make, gallery: Gallery, name: str) -> None:
        """make: a function of a module, as it is called there."""
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

    def recall(self, asked: slice, effort: int) -> float:
        """The share of the true matches of some of the gallery's queries that is found."""
        return float(self._ask("recall", asked, effort))

    def least_effort(self, asked: slice, recall: float) -> int | None:
        """The least effort that finds that share, if any does."""
        effort: int | None = self._ask("least_effort", asked, recall)
        return effort

    def latencies(self, asked: slice, effort: int) -> list[float]:
        """Milliseconds that each of some queries takes, one after the other."""
        found: list[float] = self._ask("latencies", asked, effort)
        return found

    def throughput(self, effort: int, clients: int, seconds: float) -> float:
        """Queries a second of several clients at once."""
        return float(self._ask("throughput", effort, clients, seconds))

    def memory(self) -> float:
        """MB."""
        return float(self._ask("memory"))

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._here.send((method, arguments))
        outcome, value = self._here.recv()
        if outcome == "raised":
            raise RuntimeError(f"{self.name}: {value}")
        return value


class _Answers:
    """What the other process does."""

    def __init__(self, searcher: Searcher, gallery: Gallery) -> None:
        self._searcher = searcher
        self._gallery = gallery

    def built(self) -> float:
        started = time.perf_counter()
        self._searcher.build(self._gallery.embeddings)
        return time.perf_counter() - started

    def recall(self, asked: slice, effort: int) -> float:
        return share_found(
            lambda query: self._searcher.search(query, COUNT, effort),
            self._gallery.queries[asked],
            self._gallery.true[asked],
        )

    def least_effort(self, asked: slice, recall: float) -> int | None:
        return next((effort for effort in self._searcher.efforts if self.recall(asked, effort) >= recall), None)

    def latencies(self, asked: slice, effort: int) -> list[float]:
        return milliseconds(lambda query: self._searcher.search(query, COUNT, effort), self._gallery.queries[asked])

    def throughput(self, effort: int, clients: int, seconds: float) -> float:
        def ask(client: int) -> int:
            done = 0
            while time.monotonic() < end:
                query = self._gallery.queries[(client * 131 + done) % len(self._gallery.queries)]
                self._searcher.search(query, COUNT, effort)
                done += 1
            return done

        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as threads:
            return sum(threads.map(ask, range(clients))) / seconds

    def memory(self) -> float:
        return self._searcher.memory()


def milliseconds(search: Callable[[Query], object], queries: NDArray[np.float32]) -> list[float]:
    """How long each query takes."""
    found = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        found.append(1000 * (time.perf_counter() - started))
    return found


def share_found(search: Callable[[Query], Rows], queries: NDArray[np.float32], true: NDArray[np.int64]) -> float:
    """Recall: the share of the true matches among as many as are asked for."""
    found = sum(
        len(set(search(query).tolist()) & set(rows[:COUNT].tolist())) for query, rows in zip(queries, true, strict=True)
    )
    return found / (COUNT * len(queries))


def _serve(connection: Connection, make: Make, folder: Any) -> None:
    gallery = Gallery.open(folder)
    answers = _Answers(make(gallery), gallery)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("returned", getattr(answers, method)(*arguments)))
        except Exception as error:
            connection.send(("raised", f"{type(error).__name__}: {error}"))
