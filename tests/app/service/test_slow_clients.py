"""Clients that send slowly or too much, or come in crowds: they are answered, or end, and hurt nobody."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.requests import MAX_SMALL_BODY
from app.settings import Settings
from tests.app.faults import half_sent
from tests.app.running import jpeg

Run = Callable[[Settings], httpx.Client]

KEY = "a key of these tests"
QUICK = {"header_seconds": 0.2, "body_seconds": 0.2}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """Everything that the service sends until it closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET /crops HTTP/1.1\r\nHost: a\r\nX-", b"POST"])
def test_headers_that_do_not_come_end_the_connection(run: Run, settings: Settings, sent: bytes) -> None:
    client = run(settings.model_copy(update=QUICK))
    with connection(client) as slow:
        slow.sendall(sent)
        assert all_of(slow).startswith(b"HTTP/1.1 408 ")


def test_the_headers_of_a_second_request_have_the_same_time(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update=QUICK))
    with connection(client) as slow:
        slow.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\nGET /health/live HTTP/1.1\r\n")
        answers = all_of(slow)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers


def test_a_body_that_stops_is_answered_and_ends_the_connection(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update=QUICK))
    with half_sent(client, "/search", jpeg(1)) as (slow, _):
        answer = all_of(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:passerby:problem:too-slow" in answer


def test_a_body_that_trickles_ends_too(run: Run, settings: Settings) -> None:
    """Each part comes in time, and the whole never would."""
    client = run(settings.model_copy(update=QUICK | {"body_seconds": 0.5}))
    with half_sent(client, "/search", jpeg(1), share=0.1) as (slow, rest):
        slow.settimeout(0.05)
        answer = b""
        for byte in rest:
            try:
                slow.sendall(bytes([byte]))
                answer = slow.recv(65536)
            except TimeoutError:
                continue
            break
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_too_many_connections_are_answered(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update={"max_connections": 3}))
    client.close()
    with ExitStack() as stack:
        for _ in range(3):
            others = stack.enter_context(connection(client))
        with connection(client) as refused:
            answer = all_of(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
        others.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert all_of(others).startswith(b"HTTP/1.1 200 ")
    with httpx.Client(base_url=client.base_url) as again:
        assert again.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/embed"), ("POST", "/search"), ("POST", "/reindex"), ("PATCH", "/crops"), ("GET", "/none")],
)
def test_no_body_is_awaited_without_the_key(run: Run, settings: Settings, method: str, path: str) -> None:
    client = run(settings.model_copy(update={"api_key": SecretStr(KEY)}))
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000"
    with connection(client) as slow:
        slow.sendall(f"{head}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
        assert slow.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_what_follows_a_refusal_ends_the_connection(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update=QUICK | {"api_key": SecretStr(KEY)}))
    with connection(client) as slow:
        slow.sendall(b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
        assert all_of(slow).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"[" * (MAX_SMALL_BODY + 1)),
        ("application/x-www-form-urlencoded", b"&" * (MAX_SMALL_BODY + 1)),
        ("text/plain", b" " * (MAX_SMALL_BODY + 1)),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/embed"), ("POST", "/search"), ("PATCH", "/crops"), ("PUT", "/cameras/a")]
)
def test_only_multipart_forms_may_be_large(
    shared_client: httpx.Client, method: str, path: str, content_type: str, body: bytes
) -> None:
    answer = shared_client.request(method, path, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/crops"])
def test_a_large_body_of_a_get_is_refused_too(shared_client: httpx.Client, path: str) -> None:
    answer = shared_client.request("GET", path, content=b"[" * 10**6, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 413)
