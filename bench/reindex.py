"""`python -m bench.reindex`: a change of the model under load; its speed, search latency and violations."""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from bench.pictures import Pictures
from bench.reindex_visitors import Ledger, Searched, Visitors, check_gallery
from bench.service import RunningService, service
from model.checkpoint import BUNDLED, load_checkpoint
from model.export import export_onnx
from model.loading import with_flip

_SHOWN = 20
_LONGEST_SECONDS = 3600


@dataclass(frozen=True)
class Measured:
    """A change under load, with a kill on the way, and one back without load, to a model without embeddings.

    began, changed: seconds of the monotonic clock; loaded, idle: crops embedded a second with and without load;
    megabytes: of the service with one model, and at most with two.
    """

    ledger: Ledger
    began: float
    changed: float
    loaded: float
    idle: float
    megabytes: tuple[float, float]


def reindex(crops: int, seconds: float, seed: int) -> Measured:
    """Change from the bundled checkpoint to the same with flip averaging, which has another model id."""
    with tempfile.TemporaryDirectory(prefix="passerby-") as name, ExitStack() as services:
        data, flip = Path(name) / "data", Path(name) / "flip.onnx"
        export_onnx(with_flip(load_checkpoint(BUNDLED.with_suffix(".safetensors")), True), flip)
        running = services.enter_context(service(data))
        ports = [running.port]
        visitors = Visitors(ports, Pictures(), seed, crops)
        with visitors.visiting() as ledger:
            _wait(lambda: len(ledger.kept) >= crops)
            time.sleep(seconds)
            one_model = running.resident_megabytes
            began = time.monotonic()
            old = str(_post(running, flip)["answering_model_id"])
            _wait(lambda: _progress(running)["done"] >= crops // 2)
            killed = time.monotonic()
            running.process.kill()
            again = services.enter_context(service(data))
            ports[:] = [again.port]
            down = time.monotonic() - killed
            taken = [0.0]

            def over() -> bool:
                taken.append(_with_children(again))
                return bool(_progress(again)["state"] == "idle")

            _wait(over)
            changed = time.monotonic()
            time.sleep(seconds)
        check_gallery(again.port, ledger)
        loaded = _progress(again)["done"] / (changed - began - down)
        return Measured(ledger, began, changed, loaded, _idle_speed(again, old), (one_model, max(taken)))


def _with_children(running: RunningService) -> float:
    """Megabytes of the service and of its background embedding process."""
    total = running.resident_megabytes
    for child in running.process.children():
        with suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss / 1e6
    return total


def _idle_speed(running: RunningService, old: str) -> float:
    """Crops a second without load: embed all crops again with the bundled checkpoint."""
    httpx.delete(f"{running.url}/models/{old}", timeout=60).raise_for_status()
    _wait(lambda: not _progress(running)["dropping"])
    began = time.monotonic()
    _post(running, BUNDLED)
    _wait(lambda: _progress(running)["state"] == "idle")
    return float(_progress(running)["done"]) / (time.monotonic() - began)


def _post(running: RunningService, checkpoint: Path) -> Any:
    files = {"checkpoint": (checkpoint.name, checkpoint.read_bytes())}
    return httpx.post(f"{running.url}/reindex", files=files, timeout=300).raise_for_status().json()


def _progress(running: RunningService) -> Any:
    return httpx.get(f"{running.url}/reindex", timeout=60).raise_for_status().json()


def _wait(until: Callable[[], bool]) -> None:
    latest = time.monotonic() + _LONGEST_SECONDS
    while not until():
        if time.monotonic() > latest:
            raise TimeoutError(f"it did not come to pass within {_LONGEST_SECONDS} s")
        time.sleep(0.2)


def _table(measured: Measured, seconds: float) -> Table:
    searches = measured.ledger.searches
    began, changed = measured.began, measured.changed
    table = Table("another model takes over", "")
    table.add_row("crops in the gallery; deleted", _counts(measured.ledger))
    table.add_row("embedded again, loaded", f"{measured.loaded:.0f} crops/s in {changed - began:.0f} s, with a kill")
    table.add_row("embedded again, idle", f"{measured.idle:.0f} crops/s")
    table.add_row("a search before", _spread([one for one in searches if began - seconds < one.at < began]))
    table.add_row("a search meanwhile", _spread([one for one in searches if began < one.at < changed]))
    table.add_row("a search afterwards", _spread([one for one in searches if one.at > changed]))
    table.add_row("memory with one model; most with two", "{:.0f} MB; {:.0f} MB".format(*measured.megabytes))
    table.add_row("searches; violations", f"{len(searches):,}; {len(measured.ledger.violations)}")
    return table


def _counts(ledger: Ledger) -> str:
    return f"{len(ledger.kept) - len(ledger.deleted):,}; {len(ledger.deleted):,}"


def _spread(searches: Sequence[Searched]) -> str:
    if not searches:
        return "none"
    p50, p99, most = np.percentile([1000 * one.seconds for one in searches], (50, 99, 100))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {most:.0f} ms"


def main() -> None:
    """Change the model; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30, help="of load before the change, and after it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that child processes are stopped
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    measured = reindex(arguments.crops, arguments.seconds, arguments.seed)
    console.print(_table(measured, arguments.seconds))
    console.print(*measured.ledger.violations[:_SHOWN], sep="\n", markup=False)
    sys.exit(bool(measured.ledger.violations))


if __name__ == "__main__":
    main()
