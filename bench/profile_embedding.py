"""`python -m bench.profile_embedding`: the time of `POST /embed` by thread.

The kernel counts each thread's time; a thread in the service says which is which, and looks again and again at what the
event loop's thread is at.
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

LOOK_SECONDS = 0.005
_LOOKS_A_REPORT = 20
_LONGEST_WAIT = 60.0  # seconds
_REPORT = "threads.json"
_MAIN = "MainThread"
_PACKAGE = re.compile(r"site-packages/([^/]+)|/(app/[^/]+)/|/(app/[^/]+)\.py|/(asyncio|json|tempfile|ssl)\b")
_IDLE = "nothing"


@dataclass(frozen=True)
class _Look:
    """A snapshot of the service: seconds of each thread by name, samples of the event loop, and metrics."""

    clock: float
    clients: float
    threads: Mapping[str, float]
    at: Mapping[str, int]
    metrics: Mapping[str, float]


def main() -> None:
    """Profile a service, or run as the profiled service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=12, help="that each client posts")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--crops", type=int, default=32, help="of a request")
    parser.add_argument("--no-store", action="store_true", help="embed only")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data_dir is not None:
        _serve_watched(options.port, options.data_dir)
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
        before = _look(running, Path(folder))
        speed = embed_round(running.port, pictures, load, store)
        after = _look(running, Path(folder))
    console.print(f"{load}, {'' if store else 'not '}stored: {speed:.0f} crops/s on {available_cores()} cores")
    console.print(_thread_table(before, after, load.total))
    console.print(_loop_table(before, after, load.total))
    console.print(_metric_table(before, after, load.total))


def _thread_table(before: _Look, after: _Look, crops: int) -> Table:
    """CPU seconds for 1,000 crops by kind of thread, and the idle CPU time of the machine."""
    spent = {name: 1000 * (used - before.threads.get(name, 0)) / crops for name, used in after.threads.items()}
    wall = 1000 * (after.clock - before.clock) / crops
    clients = 1000 * (after.clients - before.clients) / crops
    table = Table("thread", "seconds of a processor per 1,000 crops", "share of all cores")
    lines = [*sorted(spent.items(), key=lambda line: -line[1]), ("the clients", clients)]
    rest = available_cores() * wall - sum(seconds for _, seconds in lines)
    for name, seconds in [*lines, ("idle, or other processes", rest)]:
        table.add_row(name, f"{seconds:.3f}", f"{100 * seconds / wall / available_cores():.1f} %")
    return table


def _loop_table(before: _Look, after: _Look, crops: int) -> Table:
    """Shares of the event loop's busy time by activity.

    A look needs the interpreter's lock, so it often comes where that thread gives the lock away: take it for a hint.
    """
    at = Counter({name: after.at[name] - before.at.get(name, 0) for name in after.at})
    idle = at.pop(_IDLE, 0)
    total = max(1, at.total())
    seconds = 1000 * (after.threads[_MAIN] - before.threads[_MAIN]) / crops
    table = Table("the event loop's thread is at", "share of its work", "about, seconds per 1,000 crops")
    for name, looks in at.most_common(12):
        table.add_row(name, f"{100 * looks / total:.1f} %", f"{seconds * looks / total:.3f}")
    table.add_row("(waits)", f"{100 * idle / (idle + total):.1f} % of all looks", "")
    return table


def _metric_table(before: _Look, after: _Look, crops: int) -> Table:
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


def _look(running: RunningService, folder: Path) -> _Look:
    report = _new_report(folder / _REPORT)
    seconds: dict[str, float] = defaultdict(float)
    for thread, used in _seconds_of_threads(running.process.pid).items():
        seconds[_kind(report["names"].get(str(thread), "without a name (ONNX Runtime's own, uvloop)"))] += used
    own = sum(_seconds_of_threads(os.getpid()).values())
    return _Look(time.perf_counter(), own, seconds, report["at"], running.metrics())


def _new_report(path: Path) -> Any:
    """The next report of the profiled service. Raises TimeoutError if there is none."""
    path.unlink(missing_ok=True)
    deadline = time.monotonic() + _LONGEST_WAIT
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the profiled service wrote no report within {_LONGEST_WAIT:.0f} s")
        time.sleep(LOOK_SECONDS)
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


def _serve_watched(port: int, data_dir: Path) -> None:
    """The service with an additional sampling thread."""
    watch = threading.Thread(target=_watch, args=(data_dir / _REPORT,), name="the profiler itself", daemon=True)
    watch.start()
    serve(Settings(port=port, data_dir=data_dir))


def _watch(report: Path) -> None:
    main_thread = threading.main_thread().ident
    at: Counter[str] = Counter()
    while True:
        for _ in range(_LOOKS_A_REPORT):
            at[_place(sys._current_frames().get(main_thread or 0))] += 1
            time.sleep(LOOK_SECONDS)
        names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
        written = report.with_suffix(".new")
        written.write_text(json.dumps({"names": names, "at": at}))
        written.replace(report)


def _place(frame: FrameType | None) -> str:
    """The package of the innermost function that is not of the standard library, and the part of the app it works for.

    The event loop itself is written in C: where the outermost functions are all there is, it waits.
    """
    innermost, owner = "", ""
    while frame is not None and not owner:
        found = _PACKAGE.search(frame.f_code.co_filename)
        name = next(filter(None, found.groups()), "") if found else ""
        innermost = innermost or name
        owner = name if name.startswith("app/") else ""
        frame = frame.f_back
    if innermost in ("uvicorn", "asyncio") and owner in ("app/server", ""):
        return _IDLE if innermost == "asyncio" else "uvicorn"
    return innermost if innermost == owner else f"{innermost} for {owner}"


if __name__ == "__main__":
    main()
