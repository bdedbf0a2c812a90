"""`python -m bench.reindex`: a change of the model under load; its speed, search latency and violations."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from bench.pictures import Pictures
from bench.reindex_clients import Clients, Ledger, Search, check_gallery
from bench.rows import spread
from bench.service import RunningService, exit_on_sigterm, service
from model.checkpoint import BUNDLED, load_checkpoint
from model.export import export_onnx
from model.loading import with_flip

_SHOWN = 20
_MAX_SECONDS = 3600


@dataclass(frozen=True)
class Measured:
    """A change under load with a kill of the service, and then a change back without load, which embeds them all.

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
        with Clients(ports, Pictures(), seed, crops).running() as ledger:
            _wait(lambda: len(ledger.kept) >= crops)
            time.sleep(seconds)
            one_model = running.resident_megabytes
            began = time.monotonic()
            old = str(_post(running, flip)["active_model_id"])
            _wait(lambda: _progress(running)["embedded"] >= crops // 2)
            killed = time.monotonic()
            running.process.kill()
            restarted = services.enter_context(service(data))
            ports[:] = [restarted.port]
            downtime = time.monotonic() - killed
            two_models = [0.0]

            def is_changed() -> bool:
                two_models.append(_megabytes_with_children(restarted))
                return bool(_progress(restarted)["state"] == "idle")

            _wait(is_changed)
            changed = time.monotonic()
            time.sleep(seconds)
        check_gallery(restarted.port, ledger)
        loaded = _progress(restarted)["embedded"] / (changed - began - downtime)
        return Measured(ledger, began, changed, loaded, _idle_speed(restarted, old), (one_model, max(two_models)))


def _megabytes_with_children(running: RunningService) -> float:
    """The resident memory of the service and of its background embedding process."""
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
    return float(_progress(running)["embedded"]) / (time.monotonic() - began)


def _post(running: RunningService, checkpoint: Path) -> Any:
    files = {"checkpoint": (checkpoint.name, checkpoint.read_bytes())}
    return httpx.post(f"{running.url}/reindex", files=files, timeout=300).raise_for_status().json()


def _progress(running: RunningService) -> Any:
    return httpx.get(f"{running.url}/reindex", timeout=60).raise_for_status().json()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _MAX_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the service did not reach the expected state within {_MAX_SECONDS} s")
        time.sleep(0.2)


def _table(measured: Measured, seconds: float) -> Table:
    ledger, searches = measured.ledger, measured.ledger.searches
    began, changed = measured.began, measured.changed
    table = Table("another model takes over", "")
    table.add_row("crops in the gallery; deleted", f"{ledger.size:,}; {len(ledger.deleted):,}")
    table.add_row("embedded again, loaded", f"{measured.loaded:.0f} crops/s in {changed - began:.0f} s, with a kill")
    table.add_row("embedded again, idle", f"{measured.idle:.0f} crops/s")
    table.add_row("a search before", _latencies(search for search in searches if began - seconds < search.at < began))
    table.add_row("a search during it", _latencies(search for search in searches if began < search.at < changed))
    table.add_row("a search afterwards", _latencies(search for search in searches if search.at > changed))
    table.add_row("memory with one model; most with two", "{:.0f} MB; {:.0f} MB".format(*measured.megabytes))
    table.add_row("searches; violations", f"{len(searches):,}; {len(ledger.violations)}")
    return table


def _latencies(searches: Iterable[Search]) -> str:
    return spread([1000 * search.seconds for search in searches], (50, 99, 100), "{:.0f} ms")


def main() -> None:
    """Change the model; exit with 1 if there were violations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30, help="of load before the change, and after it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    exit_on_sigterm()
    console = Console(soft_wrap=True)
    console.print(f"seed {arguments.seed}", highlight=False)
    measured = reindex(arguments.crops, arguments.seconds, arguments.seed)
    console.print(_table(measured, arguments.seconds))
    console.print(*measured.ledger.violations[:_SHOWN], sep="\n", markup=False)
    sys.exit(bool(measured.ledger.violations))


if __name__ == "__main__":
    main()
