"""Profiles searches in one thread: `python -m bench.index.profile --crops 1000000 --folder DIR`."""

import argparse
import cProfile
import statistics
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.index.comparisons import CROPS, FOLDER
from bench.index.index_process import COUNT
from bench.index.searchers import Searcher
from bench.index.sides import restored
from bench.rounds import milliseconds

_SHOWN = 10


def main() -> None:
    """Run all queries of the gallery three times: to warm up, to measure the time, and with the profiler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where bench.index keeps its galleries")
    arguments = parser.parse_args()
    from bench.index.galleries import gallery_of

    gallery = gallery_of(arguments.folder, arguments.crops)
    searcher = restored(gallery)
    profile(searcher, gallery.queries)
    searcher.index.close()


def profile(searcher: Searcher, queries: NDArray[np.float32]) -> None:
    """Print the functions with the most time of their own in a search."""
    search = partial(searcher.search, count=COUNT, effort=0)
    milliseconds(search, queries)
    p50 = statistics.median(milliseconds(search, queries))
    profiler = cProfile.Profile()
    profiler.runcall(milliseconds, search, queries)
    table = Table("function", "milliseconds a search", title=f"p50 {p50:.2f} ms")
    for entry in sorted(profiler.getstats(), key=attrgetter("inlinetime"), reverse=True)[:_SHOWN]:
        name = entry.code if isinstance(entry.code, str) else entry.code.co_qualname
        table.add_row(name, f"{1000 * entry.inlinetime / len(queries):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
