"""A service in a separate process, with repeated starts, stops and kills, and its log."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from bench.service import free_port

_READY_SECONDS = 60.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02


class NotReady(Exception):
    """A service did not start or did not stop."""


class FaultyService:
    """`passerby serve`; at most one process at a time."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        """log: a file that each start overwrites."""
        self.settings: Mapping[str, str] = {}
        self.port = free_port()
        self._data_dir = data_dir
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process with the current settings, without waiting."""
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)]
        logging = {"PASSERBY_LOG_FORMAT": "json", "PASSERBY_LOG_LEVEL": "info", "OMP_NUM_THREADS": "1"}
        environment = os.environ | logging | dict(self.settings)
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
        """SIGTERM, if it runs. Raises NotReady if it does not end in time, or with another exit code than `code`."""
        if self._process is None or not self.runs:
            return
        self._process.terminate()
        try:
            ended_with = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotReady(f"it had not stopped {_STOP_SECONDS:.0f} s after SIGTERM") from error
        if code not in (ended_with, None):
            raise NotReady(f"after SIGTERM it ended with {ended_with}:\n{self.tail()}")

    def wait_until_ready(self) -> None:
        """Wait for readiness. Raises NotReady if the process ends or takes too long."""
        if not self.comes_up():
            raise NotReady(f"it is not ready:\n{self.tail()}")

    def comes_up(self, seconds: float = _READY_SECONDS) -> bool:
        """Wait until it is ready, or has ended; whether it is ready."""
        end = time.monotonic() + seconds
        with httpx.Client(timeout=5) as client:
            while self.runs and time.monotonic() < end:
                try:
                    if client.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200:
                        return True
                except httpx.TransportError:
                    pass
                time.sleep(_POLL_SECONDS)
        return False

    def events(self) -> Iterator[dict[str, Any]]:
        """The log events since the start."""
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # FAISS writes to standard error, too
                continue
            if isinstance(event, dict):
                yield event

    def found_damage(self) -> bool:
        """Whether it has found crops in its index that the disk had damaged, and loaded them again."""
        return any("the disk has damaged embeddings" in str(event.get("event")) for event in self.events())

    def tail(self) -> str:
        """The last lines of the log."""
        return self._log.read_text(errors="replace")[-3000:]

    def recovered_from(self) -> str:
        """The source of the index at this start."""
        events = [str(event.get("event")) for event in self.events()]
        if "the index was built from the database's rows" in events:
            return "rows"
        if "the index was restored from a snapshot" not in events:
            return "nothing"
        return "an older snapshot" if "a snapshot of the index is damaged" in events else "the newest snapshot"
