"""A small fake of the service's HTTP API on a real socket, and the command line against it."""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from app.cli import main

DAMAGED = b"damaged"
"""A file with this content fails alone, as a picture that cannot be decoded does."""

POISON = b"poison"
"""A request with a file of this content is refused as a whole, as one that is too large is."""


@dataclass
class Service:
    """The requests that the service has received, and its scripted behaviour."""

    url: str = ""
    api_key: str | None = None
    busy_answers: int = 0  # how many requests are answered 429 first
    retry_after: str = "0"
    fail_after: int | None = None  # how many requests succeed before all others are answered 500
    seconds_a_request: float = 0.0
    crops: dict[str, dict[str, Any]] = field(default_factory=dict)
    request_sizes: list[int] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    searches: list[dict[str, Any]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()
    server = uvicorn.Server(uvicorn.Config(_app(state), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield state
    server.should_exit = True
    thread.join()


@pytest.fixture
def passerby(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Runs the command line with PASSERBY_URL set to the service's."""
    monkeypatch.setenv("PASSERBY_URL", service.url)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("PASSERBY_API_KEY", raising=False)

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["passerby", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    problem = {"type": "urn:test", "title": "A problem", "status": status, "detail": detail}
    return JSONResponse(problem, status, headers, media_type="application/problem+json")


def _app(state: Service) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def key(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        if state.api_key and request.headers.get("X-API-Key") != state.api_key:
            return _problem(401, "no")
        return await proceed(request)

    @app.get("/health/ready")
    def ready() -> dict[str, Any]:
        return {"status": "ready", "model_id": "m", "gallery_size": 0}

    @app.post("/embed", status_code=201)
    def embed(
        files: Annotated[list[UploadFile], File()],
        items: Annotated[str, Form()],
        update: Annotated[bool, Form()] = False,
    ) -> Any:
        if state.busy_answers:
            state.busy_answers -= 1
            return _problem(429, "the queue is full", {"Retry-After": state.retry_after})
        if state.fail_after is not None and len(state.request_sizes) >= state.fail_after:
            return _problem(500, "the disk is full")
        state.in_flight += 1
        state.most_in_flight = max(state.most_in_flight, state.in_flight)
        time.sleep(state.seconds_a_request)
        contents = [file.file.read() for file in files]
        state.in_flight -= 1
        if POISON in contents:
            return _problem(413, "too large")
        state.request_sizes.append(len(files))
        stored = [_store(*one, update) for one in zip(contents, json.loads(items), strict=True)]
        named = [{"index": i, "filename": None, **one} for i, one in enumerate(stored)]
        return {"model_id": "m", "items": named}

    def _store(content: bytes, metadata: dict[str, Any], update: bool) -> dict[str, Any]:
        if content == DAMAGED:
            problem = {
                "type": "urn:test",
                "title": "A picture cannot be used",
                "status": 422,
                "detail": "it is damaged",
            }
            return {"status": "failed", "problem": problem}
        identity = f"{metadata['camera_id']}/{metadata['captured_at']}/{hashlib.sha256(content).hexdigest()}"
        known = state.crops.setdefault(identity, metadata)
        if known is metadata:
            return {"status": "created", "problem": None}
        differs = [name for name in ("person_id", "track_id", "attributes") if metadata.get(name) != known.get(name)]
        if update and differs:
            state.crops[identity] = metadata
            return {"status": "updated", "differs": differs}
        return {"status": "existing", "differs": differs, "problem": None}

    @app.post("/search")
    async def search(request: Request) -> Any:
        async with request.form() as form:
            files = [await file.read() for file in form.getlist("files") if not isinstance(file, str)]
            fields = {name: form.getlist(name) for name in form if name != "files"}
        state.searches.append({"files": files, **fields})
        if fields.get("camera_ids") == ["nowhere"]:
            return _problem(422, "there is no camera 'nowhere'")
        return {
            "search_id": "s1",
            "created_at": "2024-05-01T12:00:00Z",
            "model_id": "m",
            "filters": {},
            "query_crop_ids": [],
            "gallery_size": 1200,
            "compared": 900,
            "matches": state.matches,
            "sheet_url": "/searches/s1/sheet.jpg",
            "news": "of a later version",
        }

    return app
