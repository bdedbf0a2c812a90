"""Embeds in a separate process of low priority, for background work.

A low-priority thread of the service would delay all other threads while it holds the GIL.
"""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.embedding.decoding import DecodedCrop, PictureError, PictureLimits, decode
from app.embedding.engine import Engine, EngineError, load_engines
from app.embedding.start_up import check
from app.embedding.worker import outcomes_of
from app.engine_kinds import EngineKind

NICENESS = 10
"""A thread of this process gets about a tenth of a core that it shares with a thread of the service (Linux, CFS)."""

_STOP_SECONDS = 5.0

Embedded = NDArray[np.float32] | str
"""The parts `(8, 256)` of a crop, or the reason why there are none."""


@dataclass(frozen=True)
class _Task:
    checkpoint: Path
    kind: EngineKind
    threads: int | None
    limits: PictureLimits


class BackgroundEmbedder:
    """A process that embeds files with one checkpoint. It ends when its parent process ends, even by a kill."""

    def __init__(self, checkpoint: Path, kind: EngineKind, threads: int | None, limits: PictureLimits) -> None:
        """checkpoint, kind, threads: as for `load_engines`."""
        self._task = _Task(checkpoint, kind, threads, limits)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "background-embedder")

    async def __aenter__(self) -> "BackgroundEmbedder":
        self._process = await asyncio.to_thread(_start_process)
        try:
            trouble = await self._exchange(self._task)
            if trouble is not None:
                raise EngineError(str(trouble))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.kill()  # it has no state to lose
        self._thread.shutdown(wait=False)
        await asyncio.to_thread(process.wait, _STOP_SECONDS)
        with suppress(BrokenPipeError):  # it may have ended before it read everything
            process.stdin.close()
        process.stdout.close()

    async def embed(self, contents: Sequence[bytes]) -> list[Embedded]:
        """One outcome for each file, in order. Raises EngineError where the process has ended."""
        embedded: list[Embedded] = await self._exchange(list(contents))
        return embedded

    async def _exchange(self, message: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._exchange_blocking, message)

    def _exchange_blocking(self, message: object) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineError("the background process is not running")
        try:
            _send(process.stdin, message)
            return pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise EngineError(f"the process that embeds in the background ended: {error!r}") from error


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def main() -> None:
    """Serve pickled requests on the standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service handles Ctrl-C, and ends this process
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with responses
    try:
        _serve(sys.stdin.buffer, responses)
    except (EOFError, BrokenPipeError):
        return


def _serve(requests: BinaryIO, responses: BinaryIO) -> None:
    task: _Task = pickle.load(requests)
    try:
        engines = load_engines(
            task.checkpoint, task.kind, task.threads
        ).workers  # the single-request engine is not kept
        for engine in set(engines):
            check(engine)
    except Exception as error:
        _send(responses, f"{type(error).__name__}: {error}")
        return
    _send(responses, None)
    with ThreadPoolExecutor(len(engines)) as threads:
        while True:
            _send(responses, _embed(pickle.load(requests), engines, task.limits, threads))


def _embed(
    contents: Sequence[bytes], engines: Sequence[Engine], limits: PictureLimits, threads: ThreadPoolExecutor
) -> list[Embedded]:
    """Embed files with all engines, each with an equal share in its own thread."""
    size = -(-len(contents) // len(engines))
    shares = [contents[i : i + size] for i in range(0, len(contents), size)]
    large = threading.Lock()
    jobs = [
        threads.submit(_embed_share, engine, share, limits, large)
        for engine, share in zip(engines, shares, strict=False)
    ]
    return [outcome for job in jobs for outcome in job.result()]


def _embed_share(engine: Engine, contents: Sequence[bytes], limits: PictureLimits, large: Any) -> list[Embedded]:
    decoded = [_decode(content, engine, limits, large) for content in contents]
    pixels = [crop.pixels for crop in decoded if isinstance(crop, DecodedCrop)]
    outcomes = iter(outcomes_of(engine, np.stack(pixels)) if pixels else ())
    embedded: list[Embedded] = []
    for crop in decoded:
        outcome = next(outcomes) if isinstance(crop, DecodedCrop) else crop
        embedded.append(outcome if isinstance(outcome, np.ndarray) else str(outcome))
    return embedded


def _decode(content: bytes, engine: Engine, limits: PictureLimits, large: Any) -> DecodedCrop | PictureError:
    try:
        return decode(content, limits, engine.metadata.input, large)
    except PictureError as error:
        return error


def _send(to: Any, message: object) -> None:
    pickle.dump(message, to)
    to.flush()


if __name__ == "__main__":
    main()
