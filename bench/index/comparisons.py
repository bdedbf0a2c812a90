"""The parts of the benchmark: the index against exact search and other indexes; each part gives rows of the table."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from app.index.faiss_index import Tuning
from app.index.port import Addition, CropColumns, Filter, Removal
from bench.index.gallery import Gallery, nearest_rows
from bench.index.growth import Point
from bench.index.index_process import COUNT, IndexProcess, milliseconds, recall_of
from bench.index.searchers import SHARES, Flat, Passerby, Searcher, camera_of
from bench.index.sides import PEERS, flat, passerby, restored
from bench.rounds import in_turn
from bench.rows import Row

CROPS = 1_000_000
FOLDER = Path(tempfile.gettempdir()) / "passerby-bench"
"""Where galleries are kept between runs."""

CLIENTS = 8
RECALL = 0.99
EXACT_CROPS = Tuning().exact_limit
CHANGED = 1_000

TUNED_ON, MEASURED_ON = slice(0, 500), slice(500, 1000)


PARTS = ("flat", "filters", "changes", "exact", *PEERS)


def rows(rounds: int) -> list[Row]:
    """All rows of the table."""
    return rows_of(FOLDER, CROPS, rounds)


def rows_of(folder: Path, crops: int, rounds: int, only: str | None = None) -> list[Row]:
    """All rows of the table, or those of one part."""
    from bench.index.galleries import gallery_of  # imports torch, which the measured processes must not load

    gallery = gallery_of(folder, crops)
    parts: dict[str, Callable[[], list[Row]]] = {
        "flat": lambda: against_flat(gallery, rounds),
        "filters": lambda: filtered(gallery),
        "changes": lambda: changing(gallery),
        "exact": lambda: write_buffer(gallery_of(folder, EXACT_CROPS), rounds),
        **{name: partial(against, name, gallery, rounds) for name in PEERS},
    }
    return [row for name, part in parts.items() if only in (None, name) for row in part()]


def against_flat(gallery: Gallery, rounds: int) -> list[Row]:
    """Speed, recall and memory against FAISS's exact index."""
    with IndexProcess(passerby, gallery, "Passerby") as ours, IndexProcess(flat, gallery, "Flat") as other:
        recall = ours.recall(MEASURED_ON, 0)
        found = in_turn(
            {
                "ours": lambda: statistics.median(ours.latencies(MEASURED_ON, 0)),
                "flat": lambda: statistics.median(other.latencies(slice(500, 510), 0)),
            },
            rounds,
        )
        own_p50, flat_p50 = statistics.median(found["ours"]), statistics.median(found["flat"])
        memory, all_memory = ours.memory(), other.memory()
    crops = f"{len(gallery.embeddings):,} crops"
    return [
        Row(
            f"{crops}, one query at a time, p50",
            f"{own_p50:.2f} ms, recall {recall:.4f}",
            f"{flat_p50:.0f} ms, FAISS Flat",
            f"{flat_p50 / own_p50:.0f}",
            "3 ms, recall 0.99, 150 times as fast",
            own_p50 <= 3 and recall >= RECALL and flat_p50 >= 150 * own_p50,
        ),
        Row(f"{crops}, memory", _mb(memory), f"{_mb(all_memory)}, FAISS Flat", "", "600 MB", memory < 600),
    ]


def against(name: str, gallery: Gallery, rounds: int) -> list[Row]:
    """Speed and memory against another index, at its cheapest setting that reaches Passerby's recall."""
    with IndexProcess(passerby, gallery, "Passerby") as ours, IndexProcess(PEERS[name], gallery, name) as other:
        level = ours.recall(TUNED_ON, 0)
        effort = other.least_effort(TUNED_ON, level)
        if effort is None:
            return [
                Row(f"{len(gallery.embeddings):,} crops", "", f"{name} never has a recall of {level}", "", "", True)
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
    """Searches with filters of different selectivity."""
    side = restored(gallery)
    cameras = np.array(camera_of(np.arange(len(gallery.embeddings))))
    queries = gallery.queries[:200]
    found = []
    for share in SHARES:
        crop_filter = Filter(camera_ids=frozenset({f"camera {share}"}))
        passing = np.flatnonzero(cameras == f"camera {share}")
        true = nearest_rows(gallery.embeddings, queries, COUNT, passing)
        search = partial(side.search_in, count=COUNT, crop_filter=crop_filter)
        recall = recall_of(search, queries, true)
        p50 = statistics.median(milliseconds(search, queries))
        found.append(
            Row(
                f"a filter that leaves {len(passing):,} of {len(cameras):,}",
                f"p50 {p50:.1f} ms, recall {recall:.4f}",
                "",
                "",
                "10 ms, recall 0.99",
                p50 < 10 and recall >= RECALL,
            )
        )
    side.index.close()
    return found


def changing(gallery: Gallery) -> list[Row]:
    """Additions, deletions and restores with a large gallery."""
    side = restored(gallery)
    size = side.index.size
    new = [
        Addition(sequence, size + sequence, gallery.embeddings[-sequence], CropColumns("new", sequence))
        for sequence in range(1, CHANGED + 1)
    ]
    begun = time.perf_counter()
    side.index.apply(new)
    query = new[-1].embedding.astype(np.float32)[None]
    (found,) = side.index.search(query, Filter(camera_ids=frozenset({"new"})), 1)
    to_add = 1000 * (time.perf_counter() - begun)
    deleted = np.random.default_rng(1).choice(size, CHANGED, replace=False) + 1
    begun = time.perf_counter()
    side.index.apply([Removal(CHANGED + place, key) for place, key in enumerate(deleted.tolist(), start=1)])
    to_delete = 1000 * (time.perf_counter() - begun)
    left = side.index.size
    begun = time.perf_counter()
    side.index.maintain()
    to_compact = time.perf_counter() - begun
    side.index.close()
    if found.keys[0] != new[-1].key or left != size:
        raise RuntimeError("an added crop is not found, or a deleted one is counted")
    return [
        Row(
            f"{size:,} crops: restored from a snapshot",
            f"{side.seconds_to_restore:.2f} s",
            "",
            "",
            "10 s with all the service",
            side.seconds_to_restore < 10,
        ),
        Row(f"{CHANGED:,} crops added until found", f"{to_add:.0f} ms", "", "", "50 ms", to_add < 50),
        Row(
            f"{CHANGED:,} crops deleted",
            f"{to_delete:.0f} ms; codes {to_compact:.1f} s later",
            "",
            "",
            "",
            True,
        ),
    ]


def write_buffer(gallery: Gallery, rounds: int) -> list[Row]:
    """The write buffer against FAISS's IndexFlatIP."""
    ours = Passerby(Tuning(exact_limit=EXACT_CROPS))
    ours.build(gallery.embeddings)
    bare = Flat()
    bare.build(gallery.embeddings)
    queries = gallery.queries[:100]
    found = in_turn({"bare": lambda: _median(bare, queries), "ours": lambda: _median(ours, queries)}, rounds)
    own_p50, other = statistics.median(found["ours"]), statistics.median(found["bare"])
    ratio = statistics.median(own / bare_time for own, bare_time in zip(found["ours"], found["bare"], strict=True))
    same = recall_of(partial(ours.search, count=COUNT, effort=0), queries, gallery.true[:100])
    return [
        Row(
            f"{EXACT_CROPS:,} crops, write buffer, p50",
            f"{own_p50:.1f} ms, recall {same:.4f}",
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
        with IndexProcess(passerby, gallery, "Passerby") as ours:
            p50 = statistics.median(statistics.median(ours.latencies(MEASURED_ON, 0)) for _ in range(rounds))
            points.append(Point(len(gallery.embeddings), p50, ours.recall(MEASURED_ON, 0), ours.memory()))
    return points


def _median(searcher: Searcher, queries: np.ndarray) -> float:
    """Milliseconds a query, in a new thread, as FAISS's number of threads is a setting of each thread."""

    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(milliseconds, partial(searcher.search, count=COUNT, effort=0), queries)
        return statistics.median(asked.result())


def _mb(memory: float) -> str:
    return f"{memory:,.0f} MB"
