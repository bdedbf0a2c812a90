"""The parts of the benchmark: the index against exact search and against its peers; each gives rows of the table."""

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
from bench.index.index_process import COUNT, IndexProcess, recall_of
from bench.index.searchers import SHARES, Flat, Passerby, Searcher, camera_of
from bench.index.sides import PEERS, Restored, restored
from bench.rounds import in_turn, median_ratio, milliseconds
from bench.rows import Row

CROPS = 1_000_000
FOLDER = Path(tempfile.gettempdir()) / "passerby-bench"
"""The default folder of galleries, which are kept between runs."""

CLIENTS = 8
MIN_RECALL = 0.99
EXACT_CROPS = Tuning().exact_limit
CHANGED = 1_000
"""The number of crops that are added, and deleted."""

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
    with IndexProcess(Restored, gallery, "Passerby") as ours, IndexProcess(Flat, gallery, "Flat") as flat:
        recall = ours.recall(MEASURED_ON, 0)
        p50 = in_turn(
            {
                "ours": lambda: statistics.median(ours.latencies(MEASURED_ON, 0)),
                "flat": lambda: statistics.median(flat.latencies(slice(500, 510), 0)),
            },
            rounds,
        )
        our_p50, flat_p50 = statistics.median(p50["ours"]), statistics.median(p50["flat"])
        our_memory, flat_memory = ours.memory(), flat.memory()
    crops = f"{len(gallery.embeddings):,} crops"
    return [
        Row(
            f"{crops}, one query at a time, p50",
            f"{our_p50:.2f} ms, recall {recall:.4f}",
            f"{flat_p50:.0f} ms, FAISS Flat",
            f"{flat_p50 / our_p50:.0f}",
            "3 ms, recall 0.99, 150 times as fast",
            our_p50 <= 3 and recall >= MIN_RECALL and flat_p50 >= 150 * our_p50,
        ),
        Row(
            f"{crops}, memory",
            _mb(our_memory),
            f"{_mb(flat_memory)}, FAISS Flat",
            target="600 MB",
            met=our_memory < 600,
        ),
    ]


def against(name: str, gallery: Gallery, rounds: int) -> list[Row]:
    """Speed and memory against a peer, at its cheapest setting that reaches Passerby's recall."""
    crops = f"{len(gallery.embeddings):,} crops"
    with IndexProcess(Restored, gallery, "Passerby") as ours, IndexProcess(PEERS[name], gallery, name) as peer:
        tuned_recall = ours.recall(TUNED_ON, 0)
        effort = peer.least_effort(TUNED_ON, tuned_recall)
        if effort is None:
            return [Row(crops, "", f"{name} never has a recall of {tuned_recall}")]
        results = in_turn(
            {
                "ours": lambda: statistics.median(ours.latencies(MEASURED_ON, 0)),
                "peer": lambda: statistics.median(peer.latencies(MEASURED_ON, effort)),
                "ours, clients": lambda: ours.throughput(0, CLIENTS, 5),
                "peer, clients": lambda: peer.throughput(effort, CLIENTS, 5),
            },
            rounds,
        )
        medians = {side: statistics.median(values) for side, values in results.items()}
        our_recall, peer_recall = ours.recall(MEASURED_ON, 0), peer.recall(MEASURED_ON, effort)
        our_memory, peer_memory = ours.memory(), peer.memory()
    throughput_ratio = medians["ours, clients"] / medians["peer, clients"]
    return [
        Row(
            f"{crops}, one query at a time, p50",
            f"{medians['ours']:.2f} ms, recall {our_recall:.4f}",
            f"{medians['peer']:.2f} ms, {name} (effort {effort}), recall {peer_recall:.4f}",
            f"{medians['peer'] / medians['ours']:.2f} times as fast",
        ),
        Row(
            f"{crops}, {CLIENTS} clients",
            f"{medians['ours, clients']:.0f} queries/s",
            f"{medians['peer, clients']:.0f} queries/s, {name}",
            f"{throughput_ratio:.2f}",
            "over 1",
            throughput_ratio > 1,
        ),
        Row(
            f"{crops}, memory",
            _mb(our_memory),
            f"{_mb(peer_memory)}, {name}, built in {peer.seconds_to_build:.0f} s",
        ),
    ]


def filtered(gallery: Gallery) -> list[Row]:
    """Searches with filters of different selectivity."""
    passerby = restored(gallery)
    cameras = np.array(camera_of(np.arange(len(gallery.embeddings))))
    queries = gallery.queries[:200]
    lines = []
    for share in SHARES:
        crop_filter = Filter(camera_ids=frozenset({f"camera {share}"}))
        passing = np.flatnonzero(cameras == f"camera {share}")
        true = nearest_rows(gallery.embeddings, queries, COUNT, passing)
        search = partial(passerby.search_in, count=COUNT, crop_filter=crop_filter)
        recall = recall_of(search, queries, true)
        p50 = statistics.median(milliseconds(search, queries))
        lines.append(
            Row(
                f"a filter that leaves {len(passing):,} of {len(cameras):,}",
                f"p50 {p50:.1f} ms, recall {recall:.4f}",
                target="10 ms, recall 0.99",
                met=p50 < 10 and recall >= MIN_RECALL,
            )
        )
    passerby.index.close()
    return lines


def changing(gallery: Gallery) -> list[Row]:
    """Additions, deletions and restores with a large gallery."""
    passerby = restored(gallery)
    index, size = passerby.index, passerby.index.size
    new = [
        Addition(sequence, size + sequence, gallery.embeddings[-sequence], CropColumns("new", sequence))
        for sequence in range(1, CHANGED + 1)
    ]
    began = time.perf_counter()
    index.apply(new)
    query = new[-1].embedding.astype(np.float32)[None]
    (result,) = index.search(query, Filter(camera_ids=frozenset({"new"})), 1)
    add_milliseconds = 1000 * (time.perf_counter() - began)
    deleted = np.random.default_rng(1).choice(size, CHANGED, replace=False) + 1
    began = time.perf_counter()
    index.apply([Removal(sequence, key) for sequence, key in enumerate(deleted.tolist(), start=CHANGED + 1)])
    delete_milliseconds = 1000 * (time.perf_counter() - began)
    size_after = index.size
    began = time.perf_counter()
    index.maintain()
    compaction_seconds = time.perf_counter() - began
    index.close()
    if result.keys[0] != new[-1].key or size_after != size:
        raise RuntimeError("an added crop is not found, or a deleted one is counted")
    return [
        Row(
            f"{size:,} crops: restored from a snapshot",
            f"{passerby.seconds_to_restore:.2f} s",
            target="10 s with all the service",
            met=passerby.seconds_to_restore < 10,
        ),
        Row(
            f"{CHANGED:,} crops added until found",
            f"{add_milliseconds:.0f} ms",
            target="50 ms",
            met=add_milliseconds < 50,
        ),
        Row(f"{CHANGED:,} crops deleted", f"{delete_milliseconds:.0f} ms; codes {compaction_seconds:.1f} s later"),
    ]


def write_buffer(gallery: Gallery, rounds: int) -> list[Row]:
    """The write buffer against FAISS's IndexFlatIP."""
    passerby = Passerby(gallery.folder, Tuning(exact_limit=EXACT_CROPS))
    passerby.build(gallery.embeddings)
    flat = Flat(gallery.folder)
    flat.build(gallery.embeddings)
    queries = gallery.queries[:100]
    p50 = in_turn({"flat": lambda: _p50(flat, queries), "ours": lambda: _p50(passerby, queries)}, rounds)
    ratio = median_ratio(p50["ours"], p50["flat"])
    recall = recall_of(partial(passerby.search, count=COUNT, effort=0), queries, gallery.true[:100])
    return [
        Row(
            f"{EXACT_CROPS:,} crops, write buffer, p50",
            f"{statistics.median(p50['ours']):.1f} ms, recall {recall:.4f}",
            f"{statistics.median(p50['flat']):.1f} ms, FAISS Flat",
            f"{ratio:.2f}",
            "1.1 or less",
            ratio <= 1.1 and recall > 0.999,
        )
    ]


def growth(galleries: Iterable[Gallery], rounds: int) -> list[Point]:
    """Latency, recall and memory of galleries of several sizes."""
    points = []
    for gallery in galleries:
        with IndexProcess(Restored, gallery, "Passerby") as ours:
            p50 = statistics.median(statistics.median(ours.latencies(MEASURED_ON, 0)) for _ in range(rounds))
            points.append(Point(len(gallery.embeddings), p50, ours.recall(MEASURED_ON, 0), ours.memory()))
    return points


def _p50(searcher: Searcher, queries: np.ndarray) -> float:
    """Milliseconds a query, in a new thread, as FAISS's number of threads is a setting of each thread."""
    with ThreadPoolExecutor(1) as thread:
        search = partial(searcher.search, count=COUNT, effort=0)
        return statistics.median(thread.submit(milliseconds, search, queries).result())


def _mb(memory: float) -> str:
    return f"{memory:,.0f} MB"
