"""A service in a separate process, started as by a user."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

_START_SECONDS, _STOP_SECONDS = 300, 60


@dataclass(frozen=True)
class RunningService:
    """A running service: its address, time to readiness, and process."""

    url: str
    port: int
    seconds_to_ready: float
    process: psutil.Process

    @property
    def resident_megabytes(self) -> float:
        """The resident memory of the process."""
        return float(self.process.memory_info().rss) / 1e6

    @property
    def private_megabytes(self) -> float:
        """The resident memory without memory-mapped files."""
        memory = self.process.memory_info()
        return float(memory.rss - memory.shared) / 1e6

    @property
    def peak_megabytes(self) -> float:
        """The peak resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6

    def metrics(self) -> dict[str, float]:
        """The values of `/metrics` by name, summed over labels."""
        answer = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status()
        sums: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                sums[sample.name] += sample.value
        return sums


@contextmanager
def service(
    data_dir: Path,
    checkpoint: Path | None = None,
    start: Sequence[str] = ("-m", "app.cli", "serve"),
    settings: Mapping[str, str] | None = None,
    start_timeout: float = _START_SECONDS,
    log: Path | None = None,
) -> Iterator[RunningService]:
    """`passerby serve`, by default with SQLite and the bundled checkpoint, until the block ends.

    start: the arguments of Python, before `--port` and `--data-dir`; settings: environment variables; start_timeout:
    seconds until it must be ready; log: a file for its output. The settings in the working folder are not read.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, *start, "--port", str(port), "--data-dir", str(data_dir)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PASSERBY_LOG_LEVEL": "warning", "PYTHONPATH": path} | dict(settings or {})
    if checkpoint is not None:
        environment["PASSERBY_CHECKPOINT"] = str(checkpoint.resolve())
    began = time.perf_counter()
    with log.open("wb") if log else nullcontext() as output:
        process = subprocess.Popen(command, env=environment, cwd=data_dir, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ok(f"{url}/health/ready", process, start_timeout)
        yield RunningService(url, port, time.perf_counter() - began, psutil.Process(process.pid))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()
        process.wait()


def exit_on_sigterm() -> None:
    """Exit by an exception on SIGTERM, so that context managers stop their child processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ok(url: str, process: subprocess.Popen[bytes], timeout: float = _START_SECONDS) -> None:
    """Wait until a new process answers with status 200. Raises RuntimeError if it ends, or after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not _is_ok(url):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} was not ready after {timeout:.0f} s")
        time.sleep(0.05)


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
