"""`python -m bench.profile_embedding`: the time of `POST /embed` by thread.

The kernel counts the CPU time of each thread. A thread in the service reports the names of all threads, and samples the
stack of the event loop's thread.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from app.kit.cores import available_cores
from app.server import serve
from app.settings import Settings
from bench.clients import Load
from bench.embedding import embed_round
from bench.pictures import Pictures
from bench.service import RunningService, service

_SAMPLE_SECONDS = 0.005
_SAMPLES_A_REPORT = 20
_TIMEOUT_SECONDS = 60.0
_REPORT = "threads.json"
_MAIN = "MainThread"
_PACKAGE = re.compile(r"site-packages/([^/]+)|/(app/[^/]+)/|/(app/[^/]+)\.py|/(asyncio|json|tempfile|ssl)\b")
_IDLE = "nothing"


@dataclass(frozen=True)
class _Snapshot:
    """The state at a moment.

    clock: seconds; clients: CPU seconds of this process; threads: those of the service by kind of thread; samples: of
    the event loop's thread, by activity; metrics: of the service.
    """

    clock: float
    clients: float
    threads: Mapping[str, float]
    samples: Mapping[str, int]
    metrics: Mapping[str, float]


def main() -> None:
    """Profile a service, or run as the profiled service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=12, help="of each client")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--crops", type=int, default=32, help="of a request")
    parser.add_argument("--no-store", action="store_true", help="embed only")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data_dir is not None:
        _serve_sampled(options.port, options.data_dir)
        return
    load = Load(options.clients, options.crops, options.requests)
    _profile(load, not options.no_store, Console())


def _profile(load: Load, store: bool, console: Console) -> None:
    pictures = Pictures()
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), start=("-m", "bench.profile_embedding")) as running,
    ):
        embed_round(running.port, pictures, Load(load.clients, load.crops, 1), store)
        before = _snapshot(running, Path(folder))
        speed = embed_round(running.port, pictures, load, store)
        after = _snapshot(running, Path(folder))
    console.print(f"{load}, {'' if store else 'not '}stored: {speed:.0f} crops/s on {available_cores()} cores")
    console.print(_thread_table(before, after, load.total))
    console.print(_loop_table(before, after, load.total))
    console.print(_metric_table(before, after, load.total))


def _thread_table(before: _Snapshot, after: _Snapshot, crops: int) -> Table:
    """CPU seconds for 1,000 crops by kind of thread, and the idle CPU time of the machine."""
    by_thread = {name: 1000 * (used - before.threads.get(name, 0)) / crops for name, used in after.threads.items()}
    wall = 1000 * (after.clock - before.clock) / crops
    clients = 1000 * (after.clients - before.clients) / crops
    table = Table("thread", "seconds of a processor per 1,000 crops", "share of all cores")
    lines = [*sorted(by_thread.items(), key=itemgetter(1), reverse=True), ("the clients", clients)]
    idle = available_cores() * wall - sum(seconds for _, seconds in lines)
    for name, seconds in [*lines, ("idle, or other processes", idle)]:
        table.add_row(name, f"{seconds:.3f}", f"{100 * seconds / wall / available_cores():.1f} %")
    return table


def _loop_table(before: _Snapshot, after: _Snapshot, crops: int) -> Table:
    """Shares of the event loop's busy time by activity.

    A rough guide: a sample needs the GIL, so it is mostly taken where that thread releases the GIL.
    """
    samples = Counter(after.samples) - Counter(before.samples)
    idle = samples.pop(_IDLE, 0)
    busy = max(1, samples.total())
    seconds = 1000 * (after.threads[_MAIN] - before.threads[_MAIN]) / crops
    table = Table("the event loop's thread is at", "share of its work", "about, seconds per 1,000 crops")
    for name, count in samples.most_common(12):
        table.add_row(name, f"{100 * count / busy:.1f} %", f"{seconds * count / busy:.3f}")
    table.add_row("(waits)", f"{100 * idle / (idle + busy):.1f} % of all samples", "")
    return table


def _metric_table(before: _Snapshot, after: _Snapshot, crops: int) -> Table:
    """The service's own histograms: sums for 1,000 crops, and means."""
    table = Table("histogram of the service", "sum per 1,000 crops", "mean", "count")
    for name in sorted(after.metrics):
        if name.endswith("_sum"):
            total = after.metrics[name] - before.metrics.get(name, 0)
            count_name = name.replace("_sum", "_count")
            count = after.metrics[count_name] - before.metrics.get(count_name, 0)
            if count:
                table.add_row(name[:-4], f"{1000 * total / crops:.3f}", f"{total / count:.5f}", f"{count:.0f}")
    return table


def _snapshot(running: RunningService, folder: Path) -> _Snapshot:
    report = _new_report(folder / _REPORT)
    seconds: dict[str, float] = defaultdict(float)
    for thread, used in _seconds_of_threads(running.process.pid).items():
        seconds[_kind(report["names"].get(str(thread), "unnamed (ONNX Runtime's own, uvloop)"))] += used
    clients = sum(_seconds_of_threads(os.getpid()).values())
    return _Snapshot(time.perf_counter(), clients, seconds, report["samples"], running.metrics())


def _new_report(path: Path) -> Any:
    """The next report of the profiled service. Raises TimeoutError if there is none."""
    path.unlink(missing_ok=True)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the profiled service wrote no report within {_TIMEOUT_SECONDS:.0f} s")
        time.sleep(_SAMPLE_SECONDS)
    return json.loads(path.read_text())


def _seconds_of_threads(process: int) -> dict[int, float]:
    """CPU seconds of each thread of a process, by thread id."""
    seconds = {}
    for folder in Path(f"/proc/{process}/task").iterdir():
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _kind(name: str) -> str:
    """`decode-bulk_1` -> `decode-bulk`; `Thread-3 (_run)` -> `_run`."""
    return re.sub(r"^Thread-\d+ \((.*)\)$", r"\1", re.sub(r"_\d+$", "", name))


def _serve_sampled(port: int, data_dir: Path) -> None:
    """Run the service with an additional sampling thread."""
    threading.Thread(target=_sample, args=(data_dir / _REPORT,), name="the profiler itself", daemon=True).start()
    serve(Settings(port=port, data_dir=data_dir))


def _sample(report: Path) -> None:
    """Sample the main thread forever, and replace the report after some samples."""
    main_thread = threading.main_thread().ident
    samples: Counter[str] = Counter()
    while True:
        for _ in range(_SAMPLES_A_REPORT):
            samples[_activity(sys._current_frames().get(main_thread or 0))] += 1
            time.sleep(_SAMPLE_SECONDS)
        names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
        draft = report.with_suffix(".new")
        draft.write_text(json.dumps({"names": names, "samples": samples}))
        draft.replace(report)


def _activity(frame: FrameType | None) -> str:
    """The package of the innermost function that is not of the standard library, and the part of the app that calls it.

    The event loop itself is written in C: if only its callers are on the stack, it waits.
    """
    innermost, owner = "", ""
    while frame is not None and not owner:
        match = _PACKAGE.search(frame.f_code.co_filename)
        name = next(filter(None, match.groups()), "") if match else ""
        innermost = innermost or name
        owner = name if name.startswith("app/") else ""
        frame = frame.f_back
    if innermost in ("uvicorn", "asyncio") and owner in ("app/server", ""):
        return _IDLE if innermost == "asyncio" else "uvicorn"
    return innermost if innermost == owner else f"{innermost} for {owner}"


if __name__ == "__main__":
    main()
