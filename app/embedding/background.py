"""Embedding in a process of its own that gives way to the service: for work that nobody waits for.

A thread of the service would not do: one that gives way while it holds the interpreter's lock makes everybody wait.
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
"""Beside the service's own threads, one of this process gets about a tenth of a core (Linux, CFS)."""

_STOP_SECONDS = 5.0

Embedded = NDArray[np.float32] | str
"""The parts of a crop, `(8, 256)`, or why there are none."""


@dataclass(frozen=True)
class _Task:
    checkpoint: Path
    kind: EngineKind
    threads: int | None
    limits: PictureLimits


class BackgroundEmbedder:
    """A process that embeds files with one checkpoint. It ends with the process that started it, however that ends."""

    def __init__(self, checkpoint: Path, kind: EngineKind, threads: int | None, limits: PictureLimits) -> None:
        """checkpoint, kind, threads: as `load_engines` takes them."""
        self._task = _Task(checkpoint, kind, threads, limits)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "background-embedder")

    async def __aenter__(self) -> "BackgroundEmbedder":
        self._process = await asyncio.to_thread(_started)
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
        process.kill()  # it keeps nothing that could be lost
        self._thread.shutdown(wait=False)
        await asyncio.to_thread(process.wait, _STOP_SECONDS)
        with suppress(BrokenPipeError):  # where it had ended before it took in all that it was sent
            process.stdin.close()
        process.stdout.close()

    async def embed(self, contents: Sequence[bytes]) -> list[Embedded]:
        """What has become of each file, in their order. Raises EngineError where the process has ended."""
        answer: list[Embedded] = await self._exchange(list(contents))
        return answer

    async def _exchange(self, message: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, message)

    def _ask(self, message: object) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineError("the background process is not running")
        try:
            _send(process.stdin, message)
            return pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise EngineError(f"the process that embeds in the background ended: {error!r}") from error


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def main() -> None:
    """Embed what comes on the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this process
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        _serve(sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError):
        return


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    task: _Task = pickle.load(questions)
    try:
        engines = load_engines(task.checkpoint, task.kind, task.threads).workers  # one for lone crops takes memory
        for engine in set(engines):
            check(engine)
    except Exception as error:
        _send(answers, f"{type(error).__name__}: {error}")
        return
    _send(answers, None)
    with ThreadPoolExecutor(len(engines)) as threads:
        while True:
            _send(answers, _embedded(pickle.load(questions), engines, task.limits, threads))


def _embedded(
    contents: Sequence[bytes], engines: Sequence[Engine], limits: PictureLimits, threads: ThreadPoolExecutor
) -> list[Embedded]:
    """Shared out among the engines, each in a thread."""
    share = -(-len(contents) // len(engines))
    shares = [contents[i : i + share] for i in range(0, len(contents), share)]
    one_large = threading.Lock()
    jobs = [
        threads.submit(_embedded_by, engine, some, limits, one_large)
        for engine, some in zip(engines, shares, strict=False)
    ]
    return [one for job in jobs for one in job.result()]


def _embedded_by(engine: Engine, contents: Sequence[bytes], limits: PictureLimits, large: Any) -> list[Embedded]:
    decoded = [_decoded(content, engine, limits, large) for content in contents]
    pixels = [one.pixels for one in decoded if isinstance(one, DecodedCrop)]
    outcomes = iter(outcomes_of(engine, np.stack(pixels)) if pixels else ())
    answers: list[Embedded] = []
    for one in decoded:
        outcome = next(outcomes) if isinstance(one, DecodedCrop) else one
        answers.append(outcome if isinstance(outcome, np.ndarray) else str(outcome))
    return answers


def _decoded(content: bytes, engine: Engine, limits: PictureLimits, large: Any) -> DecodedCrop | PictureError:
    try:
        return decode(content, limits, engine.metadata.input, large)
    except PictureError as error:
        return error


def _send(to: Any, message: object) -> None:
    pickle.dump(message, to)
    to.flush()


if __name__ == "__main__":
    main()
