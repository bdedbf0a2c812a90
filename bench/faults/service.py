"""A service process that can be started, stopped and killed again and again, and its log."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from bench.service import free_port

_READY_SECONDS = 60.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02


class NotReady(Exception):
    """A service did not start or did not stop."""


class ServiceProcess:
    """`passerby serve`; at most one process at a time."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        """log: a file that each start overwrites."""
        self.settings: Mapping[str, str] = {}
        self.port = free_port()
        self._data_dir = data_dir
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process with the current settings, without waiting."""
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)]
        defaults = {"PASSERBY_LOG_FORMAT": "json", "PASSERBY_LOG_LEVEL": "info", "OMP_NUM_THREADS": "1"}
        environment = os.environ | defaults | dict(self.settings)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self._data_dir)], env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, code: int | None = 0) -> None:
        """SIGTERM, if it runs. Raises NotReady if it does not end in time, or with an exit code other than `code`."""
        if self._process is None or not self.is_running:
            return
        self._process.terminate()
        try:
            exit_code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotReady(f"the service had not stopped {_STOP_SECONDS:.0f} s after SIGTERM") from error
        if code not in (exit_code, None):
            raise NotReady(f"after SIGTERM the service ended with {exit_code}:\n{self.tail()}")

    def wait_until_ready(self) -> None:
        """Wait for readiness. Raises NotReady if the process ends or takes too long."""
        if not self.becomes_ready():
            raise NotReady(f"the service is not ready:\n{self.tail()}")

    def becomes_ready(self, timeout: float = _READY_SECONDS) -> bool:
        """Wait until the process is ready or ends; whether it is ready."""
        deadline = time.monotonic() + timeout
        with httpx.Client(timeout=5) as client:
            while self.is_running and time.monotonic() < deadline:
                try:
                    if client.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200:
                        return True
                except httpx.TransportError:
                    pass
                time.sleep(_POLL_SECONDS)
        return False

    def tail(self) -> str:
        """The last lines of the log."""
        return self._log.read_text(errors="replace")[-3000:]

    def recovered_from(self) -> str:
        """The source of the index at this start, by the log."""
        log = self._log.read_text(errors="replace")
        if "the index was built from the database's rows" in log:
            return "rows"
        if "the index was restored from a snapshot" not in log:
            return "nothing"
        return "an older snapshot" if "a snapshot of the index is damaged" in log else "the newest snapshot"
