"""What tests of changing the model need: another checkpoint, and requests about the change."""

import time
from pathlib import Path
from typing import Any

import httpx
from factories import tiny_metadata, write_tiny_checkpoint


def other_checkpoint(folder: Path, name: str = "other", height: int = 64, width: int = 32) -> Path:
    """A checkpoint of another model, whose embeddings have nothing to do with those of the tiny one."""
    metadata = tiny_metadata(height, width, name)
    return write_tiny_checkpoint(folder / f"{name}.onnx", metadata, seed=sum(name.encode()) + height)


def reindex(client: httpx.Client, checkpoint: Path, **form: Any) -> httpx.Response:
    """Post a checkpoint that is to answer."""
    return client.post("/reindex", files={"checkpoint": (checkpoint.name, checkpoint.read_bytes())}, data=form)


def progress(client: httpx.Client) -> dict[str, Any]:
    """What the service tells of the change."""
    answer = client.get("/reindex")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def active_model(client: httpx.Client) -> str:
    """The name of the model that answers, as readiness tells it."""
    return str(client.get("/health/ready").json()["model_id"]).split("-")[0]


def wait_for(client: httpx.Client, name: str, seconds: float = 30) -> None:
    """Wait until a model answers."""
    deadline = time.monotonic() + seconds
    while active_model(client) != name:
        assert time.monotonic() < deadline, progress(client)
        time.sleep(0.02)
