"""Milvus Lite's server in a separate process that tests can stop and restart."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_START = "from milvus_lite.cmdline import main; raise SystemExit(main())"


class MilvusLite:
    """A server that keeps its data in a folder, on a port of loopback that stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        """The URL for PASSERBY_INDEX_URL."""
        return f"milvus://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        arguments = ["server", "--data-dir", str(self.folder), "--host", "127.0.0.1", "--port", str(self.port)]
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, "Milvus Lite does not listen"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Kill the server."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
