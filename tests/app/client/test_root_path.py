"""Behind a proxy under a path prefix: links, documentation and the command line work, stripped or not."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.settings import Settings
from tests.app.running import found, jpeg, search, stored
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]
Passerby = Callable[..., Any]

PREFIX = "/site/passerby"


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, root_path=f"{PREFIX}/", batch_size=32)


@contextmanager
def proxy(target: str, strips: bool) -> Iterator[httpx.Client]:
    """A reverse proxy that passes on what is under the prefix, and nothing else; yields a client of the prefix."""

    async def passed(request: Request) -> Response:
        if not request.url.path.startswith(f"{PREFIX}/"):
            return Response("not here", 404)
        path = request.url.path.removeprefix(PREFIX) if strips else request.url.path
        headers = [(name, value) for name, value in request.headers.items() if name != "host"]
        async with httpx.AsyncClient(base_url=target, timeout=30) as client:
            answer = await client.request(
                request.method, path, params=request.url.query, headers=headers, content=await request.body()
            )
        kept = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return Response(answer.content, answer.status_code, kept)

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", passed, methods=methods)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}{PREFIX}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["stripped", "not stripped"])
def outside(request: pytest.FixtureRequest, run: Run, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the proxy in front of a service."""
    with proxy(str(run(settings).base_url), strips=request.param == "stripped") as client:
        yield client


@pytest.fixture
def database_url() -> str:
    """Not used: SQLite is in the data folder."""
    return ""


def link(client: httpx.Client, path: str) -> httpx.Response:
    """What a browser gets that follows a link of an answer."""
    return httpx.get(client.base_url.join(path))


def test_links_in_answers_can_be_followed(outside: httpx.Client) -> None:
    (crop,) = stored(outside, 1)
    assert crop["image_url"] == f"{PREFIX}/crops/{crop['id']}/image"
    assert link(outside, crop["image_url"]).content == jpeg(1)
    answer = search(outside, jpeg(1)).json()
    assert link(outside, answer["sheet_url"]).headers["content-type"] == "image/jpeg"
    assert link(outside, answer["matches"][0]["crop"]["image_url"]).content == jpeg(1)
    again = outside.get(f"/searches/{answer['search_id']}").json()
    assert again["sheet_url"] == answer["sheet_url"]


def test_pages_of_a_list_go_on(outside: httpx.Client) -> None:
    stored(outside, 1, 2, 3)
    first = outside.get("/crops", params={"limit": 2}).json()
    rest = outside.get("/crops", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert len({crop["id"] for crop in [*first["items"], *rest["items"]]}) == 3


def test_the_documentation_and_its_files_load(outside: httpx.Client) -> None:
    page = outside.get("/docs")
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page.text) + re.findall(r"url: '([^']+)'", page.text)
    assert f"{PREFIX}/openapi.json" in files
    assert len(files) >= 3
    for file in files:
        assert link(outside, file).status_code == 200, file
    assert outside.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_errors_are_those_of_the_path_without_the_prefix(outside: httpx.Client) -> None:
    assert outside.put("/models").headers["allow"] == "GET, HEAD"
    assert outside.get("/crops", params={"camera": "x"}).status_code == 422
    assert outside.get("/nowhere").status_code == 404


def test_the_limit_of_a_path_holds_under_the_prefix(run: Run, settings: Settings) -> None:
    small = settings.model_copy(update={"max_request_bytes": 2000, "max_checkpoint_bytes": 1_000_000})
    client = run(small)
    for path in ("/reindex", f"{PREFIX}/reindex"):
        answer = client.post(path, files={"checkpoint": ("x.onnx", b"0" * 10_000)})
        assert answer.status_code == 422, "the checkpoint is refused, not its size"
    assert client.post(f"{PREFIX}/search", files={"files": b"0" * 10_000}).status_code == 413


def test_the_service_answers_without_the_prefix_too(run: Run, settings: Settings) -> None:
    client = run(settings)
    assert client.get("/health/ready").status_code == 200
    assert client.get(f"{PREFIX}/health/ready").status_code == 200
    assert found(client, 1) == []


def test_the_command_line_takes_a_url_with_a_prefix(outside: httpx.Client, passerby: Passerby, tmp_path: Path) -> None:
    (crop,) = stored(outside, 1)
    url = str(outside.base_url).rstrip("/")
    (tmp_path / "person.jpg").write_bytes(jpeg(1))
    sheet = tmp_path / "sheet.jpg"
    ran = passerby("search", tmp_path / "person.jpg", "--url", url, "--out", sheet)
    assert ran.code == 0, ran.err
    assert crop["id"] in ran.out
    assert sheet.read_bytes().startswith(b"\xff\xd8")
    assert passerby("status", "--url", f"{url}/").code == 0


@pytest.mark.parametrize("wrong", ["passerby", "/a b", "/ä", "//a", "/a//b", "/a?b", "https://host/a"])
def test_a_prefix_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no path prefix"):
        Settings(root_path=wrong)


def test_a_prefix_may_end_with_a_slash() -> None:
    assert [Settings(root_path=path).root_path for path in ("", "/", "/a/", "/a/b")] == ["", "", "/a", "/a/b"]
