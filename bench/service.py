"""A service in a process of its own, as a user starts it, for benchmarks to measure from outside."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil


@dataclass(frozen=True)
class RunningService:
    """Where it answers, how long it took to be ready, and its process."""

    url: str
    seconds_to_ready: float
    process: psutil.Process

    @property
    def resident_megabytes(self) -> float:
        """Memory that the process holds now."""
        return float(self.process.memory_info().rss) / 1e6


@contextmanager
def service(data_dir: Path) -> Iterator[RunningService]:
    """`passerby serve` with the bundled checkpoint and SQLite, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)]
    began = time.perf_counter()
    environment = os.environ | {"PASSERBY_LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _is_ready(url):
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with {process.returncode} before it was ready")
            time.sleep(0.05)
        yield RunningService(url, time.perf_counter() - began, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
