"""`passerby serve` in a separate process that tests can stop or kill."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx

from app.settings import Settings


class ServiceProcess:
    """The process, and a client of it."""

    def __init__(self, settings: Settings) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = os.environ | {
            "PASSERBY_DATABASE_URL": settings.database_url or "",
            "PASSERBY_IMAGES_URL": settings.images_url or "",
            "PASSERBY_CHECKPOINT": str(settings.checkpoint),
            "PASSERBY_SNAPSHOT_EVERY": "20",
            "PASSERBY_LOG_LEVEL": "error",
        }
        command = ["serve", "--port", str(self.port), "--data-dir", str(settings.data_dir)]
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(  # without the settings in the developer's working folder
            [sys.executable, "-m", "app.cli", *command], env=environment, cwd=settings.data_dir
        )
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        """A client with separate connections."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def wait_until_ready(self) -> None:
        self._wait_until_ok("/health/ready")

    def wait_until_alive(self) -> None:
        self._wait_until_ok("/health/live")

    def _wait_until_ok(self, path: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the service ended by itself"
            assert time.monotonic() < deadline, f"{path} is not green"
            try:
                if self.client.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self, how: signal.Signals) -> int:
        """Terminate the process; returns its exit code."""
        self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait for the process to end; returns its exit code."""
        code = self.process.wait(timeout=20)
        self.client.close()
        return code

    def kill(self) -> None:
        """Kill the process, if it runs."""
        self.process.kill()
        self.process.wait()
        self.client.close()
