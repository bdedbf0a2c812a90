"""The index beside exact search and beside other indexes: `python -m bench.index --crops 1000000 --folder DIR`.

It measures what docs/performance.md tells of searching, on real and drawn embeddings (`bench/galleries.py`), which it
makes at the first run and keeps in the folder, 4 KiB a crop.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from app.index.faiss_index import FaissIndex
from app.index.port import Addition, CropColumns, Filter, Removal, SavedState
from app.index.tuning import Tuning
from bench.asking import COUNT, Asked, milliseconds, share_found
from bench.gallery import Gallery, nearest_rows
from bench.growth import SIZES, Point, draw_growth
from bench.rounds import in_turn
from bench.rows import Row, show
from bench.searchers import (
    SHARES,
    Flat,
    Hnswlib,
    MilvusLite,
    Passerby,
    Pgvector,
    Searcher,
    Usearch,
    camera_of,
)

CROPS = 1_000_000
FOLDER = Path(tempfile.gettempdir()) / "passerby-bench"
CLIENTS = 8
RECALL = 0.99
EXACT_CROPS = 50_000
CHANGED = 1_000

TUNED_ON, MEASURED_ON = slice(0, 500), slice(500, 1000)


def passerby(gallery: Gallery) -> Searcher:
    """Passerby's index, all of it, as a service that was just started has it."""
    return Started(gallery)


def flat(gallery: Gallery) -> Searcher:
    """FAISS's exact index."""
    return Flat()


def hnswlib(gallery: Gallery) -> Searcher:
    """hnswlib."""
    return Hnswlib()


def usearch(gallery: Gallery) -> Searcher:
    """usearch."""
    return Usearch()


def milvus_lite(gallery: Gallery) -> Searcher:
    """Milvus Lite."""
    return MilvusLite(fresh(gallery, "milvus"))


def pgvector(gallery: Gallery) -> Searcher:
    """PostgreSQL with pgvector."""
    return Pgvector(fresh(gallery, "pgvector"))


PEERS = {"hnswlib": hnswlib, "usearch": usearch, "Milvus Lite": milvus_lite, "pgvector": pgvector}


class Started(Passerby):
    """Passerby's index restored from a snapshot, which an earlier call for the same gallery may have made."""

    def __init__(self, gallery: Gallery) -> None:
        self._snapshot = gallery.folder / "snapshot"
        self._working = fresh(gallery, "working")
        self._gallery = gallery
        self.seconds_to_restore = 0.0

    def build(self, embeddings: np.ndarray) -> None:
        if not self._snapshot.exists():
            _snapshot(self._gallery, self._snapshot)
        begun = time.perf_counter()
        self.index = FaissIndex.restore(self._snapshot, _state(len(embeddings)), working=self._working)
        self.seconds_to_restore = time.perf_counter() - begun


def fresh(gallery: Gallery, name: str) -> Path:
    """An empty folder beside the gallery."""
    folder = gallery.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _state(size: int) -> SavedState:
    return SavedState("mgn-bench", size, 0)


def _snapshot(gallery: Gallery, folder: Path) -> None:
    """Build an index as the service does from its rows, and save it."""
    built = Passerby(fresh(gallery, "building"))
    built.build(gallery.embeddings)
    draft = fresh(gallery, "draft")
    built.index.save(draft)
    draft.rename(folder)
    built.index.close()


def beside_flat(gallery: Gallery, rounds: int) -> list[Row]:
    """Speed, recall and memory beside FAISS's exact index."""
    with Asked(passerby, gallery, "Passerby") as ours, Asked(flat, gallery, "Flat") as other:
        recall = ours.recall(MEASURED_ON, 0)
        found = in_turn(
            {
                "ours": lambda: statistics.median(ours.latencies(MEASURED_ON, 0)),
                "flat": lambda: statistics.median(other.latencies(slice(500, 510), 0)),
            },
            rounds,
        )
        mine, exact = statistics.median(found["ours"]), statistics.median(found["flat"])
        memory, all_memory = ours.memory(), other.memory()
    crops = f"{len(gallery.embeddings):,} crops"
    return [
        Row(
            f"{crops}, one query at a time, p50",
            f"{mine:.2f} ms, recall {recall:.4f}",
            f"{exact:.0f} ms, FAISS Flat",
            f"{exact / mine:.0f}",
            "5 ms, recall 0.99, 100 times as fast",
            mine <= 5 and recall >= RECALL and exact >= 100 * mine,
        ),
        Row(f"{crops}, memory", _mb(memory), f"{_mb(all_memory)}, FAISS Flat", "", "1.5 GB", memory < 1500),
    ]


def beside(name: str, gallery: Gallery, rounds: int) -> list[Row]:
    """Speed at the same recall, and memory, beside another index at its cheapest setting that has it."""
    with Asked(passerby, gallery, "Passerby") as ours, Asked(PEERS[name], gallery, name) as other:
        effort = other.least_effort(TUNED_ON, RECALL)
        if effort is None:
            return [
                Row(f"{len(gallery.embeddings):,} crops", "", f"{name} never has a recall of {RECALL}", "", "", True)
            ]
        found = in_turn(
            {
                "ours": lambda: statistics.median(ours.latencies(MEASURED_ON, 0)),
                "other": lambda: statistics.median(other.latencies(MEASURED_ON, effort)),
                "ours, clients": lambda: ours.throughput(0, CLIENTS, 5),
                "other, clients": lambda: other.throughput(effort, CLIENTS, 5),
            },
            rounds,
        )
        median = {side: statistics.median(values) for side, values in found.items()}
        recall, its_recall = ours.recall(MEASURED_ON, 0), other.recall(MEASURED_ON, effort)
        memory, its_memory, seconds = ours.memory(), other.memory(), other.seconds_to_build
    crops = f"{len(gallery.embeddings):,} crops"
    faster = median["other"] / median["ours"]
    more = median["ours, clients"] / median["other, clients"]
    return [
        Row(
            f"{crops}, one query at a time, p50",
            f"{median['ours']:.2f} ms, recall {recall:.4f}",
            f"{median['other']:.2f} ms, {name} (effort {effort}), recall {its_recall:.4f}",
            f"{faster:.2f} times as fast",
            "",
            True,
        ),
        Row(
            f"{crops}, {CLIENTS} clients",
            f"{median['ours, clients']:.0f} queries/s",
            f"{median['other, clients']:.0f} queries/s, {name}",
            f"{more:.2f}",
            "over 1",
            more > 1,
        ),
        Row(f"{crops}, memory", _mb(memory), f"{_mb(its_memory)}, {name}, built in {seconds:.0f} s", "", "", True),
    ]


def filtered(gallery: Gallery) -> list[Row]:
    """Searches with filters that leave little and much."""
    started = _started(gallery)
    cameras = np.array(camera_of(np.arange(len(gallery.embeddings))))
    queries = gallery.queries[:200]
    found = []
    for share in SHARES:
        which = Filter(camera_ids=frozenset({f"camera {share}"}))
        passing = np.flatnonzero(cameras == f"camera {share}")
        true = nearest_rows(gallery.embeddings, queries, COUNT, passing)
        search = partial(started.search_in, count=COUNT, which=which)
        recall = share_found(search, queries, true)
        p50 = statistics.median(milliseconds(search, queries))
        found.append(
            Row(
                f"a filter that leaves {len(passing):,} of {len(cameras):,}",
                f"p50 {p50:.1f} ms, recall {recall:.4f}",
                "",
                "",
                "25 ms, recall 0.99",
                p50 < 25 and recall >= RECALL,
            )
        )
    started.index.close()
    return found


def changing(gallery: Gallery) -> list[Row]:
    """Adding, deleting, and starting with a large gallery."""
    started = _started(gallery)
    size = started.index.size
    started.index.upkeep()  # looks through all embeddings once
    new = [
        Addition(sequence, size + sequence, gallery.embeddings[-sequence], CropColumns("new", sequence))
        for sequence in range(1, CHANGED + 1)
    ]
    begun = time.perf_counter()
    started.index.apply(new)
    hits = started.index.search(new[-1].embedding.astype(np.float32), Filter(camera_ids=frozenset({"new"})), 1).hits
    to_add = 1000 * (time.perf_counter() - begun)
    gone = np.random.default_rng(1).choice(size, CHANGED, replace=False) + 1
    begun = time.perf_counter()
    started.index.apply([Removal(CHANGED + place, key) for place, key in enumerate(gone.tolist(), start=1)])
    to_delete = 1000 * (time.perf_counter() - begun)
    left = started.index.size
    begun = time.perf_counter()
    started.index.upkeep()
    to_purge = time.perf_counter() - begun
    started.index.close()
    if [hit.key for hit in hits] != [new[-1].key] or left != size:
        raise RuntimeError("what was added is not found, or what was deleted is still counted")
    return [
        Row(
            f"{size:,} crops: restored from a snapshot",
            f"{started.seconds_to_restore:.2f} s",
            "",
            "",
            "10 s with all the service",
            started.seconds_to_restore < 10,
        ),
        Row(f"{CHANGED:,} crops added until found", f"{to_add:.0f} ms", "", "", "100 ms", to_add < 100),
        Row(
            f"{CHANGED:,} crops deleted", f"{to_delete:.0f} ms; codes and rows {to_purge:.1f} s later", "", "", "", True
        ),
    ]


def exact_tier(gallery: Gallery, rounds: int) -> list[Row]:
    """The exact tier beside bare FAISS."""
    ours = Passerby(fresh(gallery, "working"), Tuning(exact_limit=EXACT_CROPS))
    ours.build(gallery.embeddings)
    bare = Flat()
    bare.build(gallery.embeddings)
    queries = gallery.queries[:100]
    found = in_turn({"bare": lambda: _median(bare, queries), "ours": lambda: _median(ours, queries)}, rounds)
    mine, other = statistics.median(found["ours"]), statistics.median(found["bare"])
    ratio = statistics.median(one / another for one, another in zip(found["ours"], found["bare"], strict=True))
    same = share_found(partial(ours.search, count=COUNT, effort=0), queries, gallery.true[:100])
    return [
        Row(
            f"{EXACT_CROPS:,} crops, exact tier, p50",
            f"{mine:.1f} ms, recall {same:.4f}",
            f"{other:.1f} ms, FAISS Flat",
            f"{ratio:.2f}",
            "1.1 or less",
            ratio <= 1.1 and same > 0.999,
        )
    ]


def growth(galleries: Iterable[Gallery], rounds: int) -> list[Point]:
    """Latency, recall and memory of galleries of several sizes."""
    points = []
    for gallery in galleries:
        with Asked(passerby, gallery, "Passerby") as ours:
            p50 = statistics.median(statistics.median(ours.latencies(MEASURED_ON, 0)) for _ in range(rounds))
            points.append(Point(len(gallery.embeddings), p50, ours.recall(MEASURED_ON, 0), ours.memory()))
    return points


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="20 GB for a million crops and all peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["flat", "filters", "changes", "exact", *PEERS], help="one part alone")
    parser.add_argument("--plot", type=Path, help="measure how all grows from 10,000 crops on, and draw it there")
    arguments = parser.parse_args()
    if arguments.plot:
        from bench.galleries import gallery_of

        galleries = (gallery_of(arguments.folder, size) for size in SIZES if size <= arguments.crops)
        draw_growth(growth(galleries, arguments.rounds), arguments.plot)
        return
    show(rows_of(arguments.folder, arguments.crops, arguments.rounds, arguments.only), Console())


def rows(rounds: int) -> list[Row]:
    """All lines of the table."""
    return rows_of(FOLDER, CROPS, rounds)


def rows_of(folder: Path, crops: int, rounds: int, only: str | None = None) -> list[Row]:
    """All lines of the table, or those of one part."""
    from bench.galleries import gallery_of  # with torch, which the processes that are measured must not have

    gallery = gallery_of(folder, crops)
    parts: dict[str, Callable[[], list[Row]]] = {
        "flat": lambda: beside_flat(gallery, rounds),
        "filters": lambda: filtered(gallery),
        "changes": lambda: changing(gallery),
        "exact": lambda: exact_tier(gallery_of(folder, EXACT_CROPS), rounds),
        **{name: partial(beside, name, gallery, rounds) for name in PEERS},
    }
    return [row for name, part in parts.items() if only in (None, name) for row in part()]


def _started(gallery: Gallery) -> Started:
    started = Started(gallery)
    started.build(gallery.embeddings)
    return started


def _median(searcher: Searcher, queries: np.ndarray) -> float:
    """Milliseconds a query, in a new thread: FAISS's number of threads is a setting of each."""
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(milliseconds, partial(searcher.search, count=COUNT, effort=0), queries)
        return statistics.median(asked.result())


def _mb(memory: float) -> str:
    return f"{memory:,.0f} MB"


if __name__ == "__main__":
    main()
