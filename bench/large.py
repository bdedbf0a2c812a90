"""A service with a large gallery in its database: `python -m bench.large --crops 1000000 --folder DIR`.

It measures the time to readiness from rows, from a snapshot and after a kill; searches over HTTP, also while
the segment is rebuilt; and memory and disk a crop. The gallery is that of `bench.index`; queries are drawn people.
"""

import argparse
import asyncio
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.clients import Client, multipart
from bench.filling import fill
from bench.index.comparisons import CROPS, FOLDER
from bench.pictures import Pictures
from bench.rows import Row, show
from bench.service import RunningService, service
from bench.visiting import asked
from model.checkpoint import BUNDLED
from model.loading import read_metadata

_SEARCHES = 300
_TOP_K = 10
_WARM_UP = 20
_READY_SECONDS = 10.0
_LONGEST_SECONDS = 3_600.0


def rows(folder: Path, crops: int) -> list[Row]:
    """All lines of the table. folder: of the gallery and of temporary files."""
    from bench.index.galleries import gallery_of

    embeddings = gallery_of(folder, crops).embeddings
    with TemporaryDirectory(prefix="passerby-", dir=folder) as name:
        return _measured(Path(name), embeddings)


def _measured(data: Path, embeddings: NDArray[np.float16]) -> list[Row]:
    crops = len(embeddings)
    with service(data):
        pass  # creates the database
    began = time.perf_counter()
    asyncio.run(fill(data, read_metadata(BUNDLED).model_id, embeddings[: crops // 2]))
    with service(data, seconds=_LONGEST_SECONDS):
        pass  # builds an index for half of the crops, which the other half outgrows
    asyncio.run(fill(data, read_metadata(BUNDLED).model_id, embeddings[crops // 2 :], crops // 2))
    filled = time.perf_counter() - began
    during, seconds = _during_rebuild(data)
    shutil.rmtree(data / "snapshots")
    with service(data, seconds=_LONGEST_SECONDS) as running:
        from_rows = running.seconds_to_ready
    with service(data) as running:
        after_stop = running.seconds_to_ready
        idle = list(islice(_searches(running), _SEARCHES))
        memory = running.private_megabytes
        running.process.kill()
    with service(data) as running:
        after_kill = running.seconds_to_ready
    database = _bytes(data.glob("passerby.sqlite3*"))
    index = _bytes((data / "snapshots").rglob("*"))
    return [
        _row(f"{crops:,} crops: ready, no snapshot", f"{from_rows:.0f} s, after {filled:.0f} s to store them"),
        _ready(f"{crops:,} crops: ready, stopped before", after_stop),
        _ready(f"{crops:,} crops: ready, killed before", after_kill),
        _row("one POST /search", _spread(idle)),
        _row(f"the same while an outgrown index is rebuilt, which takes {seconds:.0f} s", _spread(during)),
        _row("memory of the service", f"{memory:.0f} MB"),
        _row("database on disk, a crop", f"{database / crops:,.0f} bytes"),
        _row("index on disk, a crop", f"{index / crops:,.0f} bytes"),
    ]


def _searches(running: RunningService) -> Iterator[float]:
    """Milliseconds of sequential searches; the first ones warm up."""
    client = Client(running.port)
    pictures = Pictures().drawn
    for number in count(-_WARM_UP):
        body = multipart([pictures[number % len(pictures)]], {"top_k": str(_TOP_K)})
        began = time.perf_counter()
        found = len(asked(client, "/search", body, 200)["matches"])
        milliseconds = 1000 * (time.perf_counter() - began)
        if found != _TOP_K:
            raise RuntimeError(f"{found} matches where there are {_TOP_K}")
        if number >= 0:
            yield milliseconds


def _during_rebuild(data: Path) -> tuple[list[float], float]:
    """Searches of a service while it rebuilds an index that is outgrown, and the seconds of the rebuild."""
    log = data / "log"
    with service(data, settings={"PASSERBY_LOG_LEVEL": "info"}, log=log, seconds=_LONGEST_SECONDS) as running:
        began = time.perf_counter()
        found = []
        for milliseconds in _searches(running):
            found.append(milliseconds)
            if len(found) % _SEARCHES == 0 and b"built from the database's rows" in log.read_bytes():
                return found, time.perf_counter() - began
            if time.perf_counter() - began > _LONGEST_SECONDS:
                raise TimeoutError(f"the index was not rebuilt within {_LONGEST_SECONDS:.0f} s")
    raise AssertionError("there is always one more search")


def _bytes(paths: Iterable[Path]) -> int:
    """Bytes of files on the disk; hard links count once."""
    found = {(status.st_dev, status.st_ino): 512 * status.st_blocks for status in map(Path.stat, paths)}
    return sum(found.values())


def _row(what: str, ours: str) -> Row:
    return Row(what, ours, "", "", "", True)


def _ready(what: str, seconds: float) -> Row:
    return Row(what, f"{seconds:.1f} s", "", "", f"{_READY_SECONDS:.0f} s", seconds < _READY_SECONDS)


def _spread(milliseconds: list[float]) -> str:
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="30 GB for a million crops")
    arguments = parser.parse_args()
    show(rows(arguments.folder, arguments.crops), Console())


if __name__ == "__main__":
    main()
