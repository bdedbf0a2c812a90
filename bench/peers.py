"""Peers of the service, with the same network: LitServe, and a minimal FastAPI endpoint.

python -m bench.peers litserve --checkpoint FILE --port PORT
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.clients import Load
from bench.pictures import as_inputs
from bench.service import free_port, wait_until_ok
from model.onnx_session import open_session


def serve_naively(checkpoint: Path, port: int) -> None:
    """A plain FastAPI endpoint that decodes pictures and runs the session; no queue, no limits, no storage."""
    session, metadata = open_session(checkpoint)
    app = FastAPI()

    @app.get("/health")
    def health() -> None:
        return None

    @app.post("/predict")
    def predict(files: list[UploadFile]) -> dict[str, int]:
        inputs = as_inputs([file.file.read() for file in files], metadata.input)
        return {"crops": len(session.run(None, {"crops": inputs})[0])}

    uvicorn.run(app, port=port, log_level="warning")


def serve_with_litserve(checkpoint: Path, port: int, workers: int, threads: int, max_requests: int) -> None:
    """LitServe with dynamic batching and decoding in its worker processes. max_requests: in a batch."""
    import litserve

    from bench.litserve_api import Embedding

    api = Embedding(checkpoint, threads, max_requests)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=False, fast_queue=True)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


class Peer:
    """A running peer, suspended between its rounds, as some of its processes busy-wait."""

    def __init__(self, port: int, group: int) -> None:
        """group: of its processes."""
        self.port = port
        self._group = group

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Resume the server until the block ends."""
        os.killpg(self._group, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self._group, signal.SIGSTOP)


@contextmanager
def peer(*arguments: str, checkpoint: Path) -> Iterator[Peer]:
    """`python -m bench.peers ARGUMENTS` with all its processes, until the block ends."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "bench.peers", *arguments]
    command += ["--checkpoint", str(checkpoint), "--port", str(port)]
    with TemporaryDirectory() as temporary:  # for sockets that LitServe does not delete
        process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"TMPDIR": temporary})
        try:
            wait_until_ok(f"http://127.0.0.1:{port}/health", process)
            os.killpg(process.pid, signal.SIGSTOP)
            yield Peer(port, process.pid)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def litserve_settings(load: Load, cores: int) -> list[tuple[str, ...]]:
    """Arguments to try: one worker with all cores or one a core; batches of one request or of several."""
    several = max(2, 32 // load.crops)
    return [
        ("litserve", "--workers", str(workers), "--threads", str(cores // workers), "--requests", str(requests))
        for workers in sorted({1, cores})
        for requests in sorted({1, several})
    ]


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("litserve", "naive"))
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="LitServe's processes")
    parser.add_argument("--threads", type=int, default=1, help="of each of them")
    parser.add_argument("--requests", type=int, default=1, help="of a batch of LitServe at most")
    options = parser.parse_args()
    if options.kind == "naive":
        serve_naively(options.checkpoint, options.port)
    else:
        serve_with_litserve(options.checkpoint, options.port, options.workers, options.threads, options.requests)


if __name__ == "__main__":
    main()
