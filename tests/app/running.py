"""Runs the service in a thread of the test, with requests over a real socket."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.embedding.engine import Engines
from app.main import create_app
from app.server import server_config
from app.settings import Settings
from tests.app.factories import encoded, picture

CAPTURED_AT = "2026-05-04T17:30:00+02:00"


class _PromptServer(uvicorn.Server):
    """A server that ends as soon as it is asked to: uvicorn's looks every tenth of a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        if not self.should_exit:
            await self._ended.wait()

    def end(self) -> None:
        """Finish the requests, and end; from another thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)


@contextmanager
def running_service(settings: Settings, engines: Engines | None = None) -> Iterator[httpx.Client]:
    """A service on a free loopback port during the context; `engines` as for `create_app`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = _PromptServer(server_config(create_app(settings, engines), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError("the service did not start; its log says why")
                time.sleep(0.01)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
        finally:
            server.end()
            thread.join()


def jpeg(seed: int) -> bytes:
    """A crop that differs from those of other seeds."""
    return encoded(picture(seed))


def embed(client: httpx.Client, *contents: bytes, camera: str | None = "gate", **form: Any) -> httpx.Response:
    """Post crops."""
    data = {"captured_at": CAPTURED_AT} | ({"camera_id": camera} if camera else {}) | form
    files = [("files", (f"{index}.jpg", content)) for index, content in enumerate(contents)]
    return client.post("/embed", files=files, data={k: v for k, v in data.items() if v is not None})


def stored(client: httpx.Client, *seeds: int, **form: Any) -> list[dict[str, Any]]:
    """Post crops that must be accepted; returns them as in the response."""
    answer = embed(client, *(jpeg(seed) for seed in seeds), **form)
    assert answer.status_code == 201, answer.text
    return [item["crop"] for item in answer.json()["items"]]


def search(client: httpx.Client, *contents: bytes, **form: Any) -> httpx.Response:
    """Search by pictures."""
    files = [("files", (f"{index}.jpg", content)) for index, content in enumerate(contents)]
    return client.post("/search", files=files, data=form)


def found(client: httpx.Client, seed: int, **form: Any) -> list[str]:
    """The ids of the crops that a search finds, best first."""
    answer = search(client, jpeg(seed), **form)
    assert answer.status_code == 200, answer.text
    return [match["crop"]["id"] for match in answer.json()["matches"]]
