"""Helpers for tests of reindexing: another checkpoint, and requests."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint


def other_checkpoint(folder: Path, name: str = "other", height: int = 64, width: int = 32) -> Path:
    """A checkpoint of another model, whose embeddings are unrelated to those of the tiny one."""
    metadata = tiny_metadata(height, width, name)
    return write_tiny_checkpoint(folder / f"{name}.onnx", metadata, seed=sum(name.encode()) + height)


def embedding_processes(of: int | None = None) -> set[psutil.Process]:
    """The processes that a process (this one by default) embeds in, apart from its own."""
    found = set()
    for child in psutil.Process(of).children():
        with suppress(psutil.NoSuchProcess):  # it has ended since
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child)
    return found


def reindex(client: httpx.Client, checkpoint: Path, **form: Any) -> httpx.Response:
    """Begin a switch to a checkpoint."""
    return client.post("/reindex", files={"checkpoint": (checkpoint.name, checkpoint.read_bytes())}, data=form)


def progress(client: httpx.Client) -> dict[str, Any]:
    """The state of the reindex."""
    response = client.get("/reindex")
    assert response.status_code == 200, response.text
    state: dict[str, Any] = response.json()
    return state


def active_model(client: httpx.Client) -> str:
    """The name of the active model, from the readiness."""
    return str(client.get("/health/ready").json()["model_id"]).split("-")[0]


def wait_until(client: httpx.Client, state: str, seconds: float = 30) -> dict[str, Any]:
    """Wait until the reindex is in a state; returns its progress then."""
    deadline = time.monotonic() + seconds
    while (last := progress(client))["state"] != state:
        assert time.monotonic() < deadline, last
        time.sleep(0.02)
    return last


def wait_until_blocked(client: httpx.Client, seconds: float = 120) -> dict[str, Any]:
    """Wait until the switch is blocked, and the reason is given with it."""
    blocked = wait_until(client, "blocked", seconds)
    assert blocked["trouble"] is not None
    return blocked


def wait_for(client: httpx.Client, name: str, seconds: float = 30) -> None:
    """Wait until a model is active."""
    deadline = time.monotonic() + seconds
    while active_model(client) != name:
        assert time.monotonic() < deadline, progress(client)
        time.sleep(0.02)
