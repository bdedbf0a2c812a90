"""A service with a large gallery in its database: `python -m bench.large --crops 1000000 --folder DIR`.

It measures the time to readiness from rows, from a snapshot and after a kill; searches over HTTP, also while the
segment is rebuilt; and memory and disk a crop. The gallery is that of `bench.index`; queries are drawn people.
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

from bench.client_threads import post_form
from bench.clients import Client, multipart
from bench.filling import fill
from bench.index.comparisons import CROPS, FOLDER
from bench.pictures import Pictures
from bench.rows import Row, show, spread
from bench.service import RunningService, service
from model.checkpoint import BUNDLED
from model.loading import read_metadata

_SEARCHES = 300
_TOP_K = 10
_WARM_UP = 20
_MAX_READY_SECONDS = 10.0
_TIMEOUT_SECONDS = 3_600.0
_PERCENTILES = (50, 95, 99), "{:.1f} ms"


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
    with service(data, start_timeout=_TIMEOUT_SECONDS):
        pass  # builds an index for half of the crops
    asyncio.run(fill(data, read_metadata(BUNDLED).model_id, embeddings[crops // 2 :], crops // 2))
    filled = time.perf_counter() - began
    during_rebuild, rebuild_seconds = _during_rebuild(data)
    shutil.rmtree(data / "snapshots")
    with service(data, start_timeout=_TIMEOUT_SECONDS) as running:
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
        Row(f"{crops:,} crops: ready, no snapshot", f"{from_rows:.0f} s, after {filled:.0f} s to store them"),
        _ready_row(f"{crops:,} crops: ready, stopped before", after_stop),
        _ready_row(f"{crops:,} crops: ready, killed before", after_kill),
        Row("one POST /search", spread(idle, *_PERCENTILES)),
        Row(
            f"the same while an outgrown index is rebuilt, which takes {rebuild_seconds:.0f} s",
            spread(during_rebuild, *_PERCENTILES),
        ),
        Row("memory of the service", f"{memory:.0f} MB"),
        Row("database on disk, a crop", f"{database / crops:,.0f} bytes"),
        Row("index on disk, a crop", f"{index / crops:,.0f} bytes"),
    ]


def _searches(running: RunningService) -> Iterator[float]:
    """Milliseconds of sequential searches; the first ones warm up."""
    client = Client(running.port)
    pictures = Pictures().drawn
    for number in count(-_WARM_UP):
        body = multipart([pictures[number % len(pictures)]], {"top_k": str(_TOP_K)})
        began = time.perf_counter()
        matches = post_form(client, "/search", body, 200)["matches"]
        milliseconds = 1000 * (time.perf_counter() - began)
        if len(matches) != _TOP_K:
            raise RuntimeError(f"a search has {len(matches)} matches instead of {_TOP_K}")
        if number >= 0:
            yield milliseconds


def _during_rebuild(data: Path) -> tuple[list[float], float]:
    """Milliseconds of searches while the service rebuilds its outgrown index, and the seconds of the rebuild."""
    log = data / "log"
    with service(data, settings={"PASSERBY_LOG_LEVEL": "info"}, log=log, start_timeout=_TIMEOUT_SECONDS) as running:
        began = time.perf_counter()
        latencies = []
        for milliseconds in _searches(running):
            latencies.append(milliseconds)
            if len(latencies) % _SEARCHES == 0 and b"built from the database's rows" in log.read_bytes():
                return latencies, time.perf_counter() - began
            if time.perf_counter() - began > _TIMEOUT_SECONDS:
                raise TimeoutError(f"the index was not rebuilt within {_TIMEOUT_SECONDS:.0f} s")
    raise AssertionError("the searches never end")


def _bytes(paths: Iterable[Path]) -> int:
    """Bytes of files on the disk; hard links count once."""
    by_inode = {(status.st_dev, status.st_ino): 512 * status.st_blocks for status in map(Path.stat, paths)}
    return sum(by_inode.values())


def _ready_row(what: str, seconds: float) -> Row:
    return Row(what, f"{seconds:.1f} s", target=f"{_MAX_READY_SECONDS:.0f} s", met=seconds < _MAX_READY_SECONDS)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="30 GB for a million crops")
    arguments = parser.parse_args()
    show(rows(arguments.folder, arguments.crops), Console())


if __name__ == "__main__":
    main()
