"""Embeds in a separate process: background work at low priority, and checkpoints that nobody has tried yet.

A low-priority thread of the service would delay all other threads while it holds the GIL. A checkpoint that hangs or
crashes does so in its process alone.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.embedding.engine import Engine, EngineError, load_engines
from app.embedding.start_up import check
from app.embedding.worker import outcomes_of
from app.engine_kinds import EngineKind
from model.checkpoint import CheckpointMetadata
from model.decoding import DecodedCrop, PictureError, PictureLimits, decode
from model.errors import CheckpointError

if sys.platform == "linux":
    import resource

NICENESS = 10
"""A thread of this process gets about a tenth of a core that it shares with a thread of the service (Linux, CFS)."""

Embedded = NDArray[np.float32] | str
"""The parts `(8, 256)` of a crop, or the reason why there are none."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Task:
    checkpoint: Path
    kind: EngineKind
    threads: int | None
    limits: PictureLimits


class BackgroundEmbedder:
    """A process that embeds files with one checkpoint, while it is entered. It ends with its parent, even by a kill."""

    def __init__(
        self,
        checkpoint: Path,
        kind: EngineKind,
        threads: int | None,
        limits: PictureLimits,
        niceness: int = NICENESS,
        max_bytes: int | None = None,
    ) -> None:
        """checkpoint, kind, threads: as for `load_engines`; niceness: in addition to that of this process.

        max_bytes: of memory that the process may take, where the system can limit it.
        """
        self._metadata: CheckpointMetadata | None = None
        self._killed = False
        self._task = _Task(checkpoint, kind, threads, limits)
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (niceness, max_bytes))

    async def __aenter__(self) -> "BackgroundEmbedder":
        """Load the checkpoint, check its reference embeddings, and embed a blank crop.

        Raises EngineError, CheckpointError.
        """
        try:
            self._metadata = await self._run(_load, self._task)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await asyncio.to_thread(self._pool.shutdown)

    @property
    def metadata(self) -> CheckpointMetadata:
        """The checkpoint's metadata, once the process is entered."""
        if self._metadata is None:
            raise RuntimeError("the checkpoint is not loaded")
        return self._metadata

    def kill(self) -> None:
        """Kill the process, which has no state to lose; a running call raises EngineError."""
        self._killed = True
        for process in list((self._pool._processes or {}).values()):  # `kill_workers` from Python 3.14 on
            process.kill()

    async def embed(self, contents: Sequence[bytes]) -> list[Embedded]:
        """One outcome for each file, in order. Raises EngineError where the process has ended."""
        return await self._run(_embed, self._task, contents)

    async def _run(
        self, work: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        try:
            running = await asyncio.to_thread(self._pool.submit, work, *arguments, **named)
            if self._killed:  # before this call started the process
                self.kill()
            return await asyncio.wrap_future(running)
        except BrokenProcessPool as error:
            raise EngineError("the process that embeds in the background ended") from error


def _start(niceness: int, max_bytes: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service handles Ctrl-C, and ends this process
    os.dup2(2, 1)  # the standard output is the service's
    if hasattr(os, "nice"):
        os.nice(niceness)
    if max_bytes is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process of a pool waits for work for ever, as it holds both ends of the pipe."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load(task: _Task) -> CheckpointMetadata:
    try:
        engine = _engines(task)[0]
        (outcome,) = outcomes_of(engine, np.zeros((1, *engine.metadata.input.size, 3), dtype=np.uint8))
    except (EngineError, CheckpointError):
        raise
    except Exception as error:  # of a library, which may not be able to go from one process to another
        raise EngineError(f"{type(error).__name__}: {error}") from None
    if isinstance(outcome, EngineError):
        raise outcome
    return engine.metadata


@cache
def _engines(task: _Task) -> Sequence[Engine]:
    engines = load_engines(task.checkpoint, task.kind, task.threads).workers  # the single-request engine is not kept
    for engine in set(engines):
        check(engine)
    return engines


def _embed(task: _Task, contents: Sequence[bytes]) -> list[Embedded]:
    """Embed files with all engines, each with an equal share in its own thread."""
    engines = _engines(task)
    size = -(-len(contents) // len(engines))
    shares = [contents[i : i + size] for i in range(0, len(contents), size)]
    with ThreadPoolExecutor(len(engines)) as threads:
        embed = partial(_embed_share, task.limits, threading.Lock())
        return list(chain.from_iterable(threads.map(embed, engines, shares)))


def _embed_share(
    limits: PictureLimits, large_picture_lock: AbstractContextManager[object], engine: Engine, contents: Sequence[bytes]
) -> list[Embedded]:
    decoded = [_decode(content, engine, limits, large_picture_lock) for content in contents]
    pixels = [crop.pixels for crop in decoded if isinstance(crop, DecodedCrop)]
    outcomes = iter(outcomes_of(engine, np.stack(pixels)) if pixels else ())
    embedded: list[Embedded] = []
    for crop in decoded:
        outcome = next(outcomes) if isinstance(crop, DecodedCrop) else crop
        embedded.append(outcome if isinstance(outcome, np.ndarray) else str(outcome))
    return embedded


def _decode(
    content: bytes, engine: Engine, limits: PictureLimits, large_picture_lock: AbstractContextManager[object]
) -> DecodedCrop | PictureError:
    try:
        return decode(content, limits, engine.metadata.input, large_picture_lock)
    except PictureError as error:
        return error
