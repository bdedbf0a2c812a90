"""Helpers for tests of faults: a service with a scripted engine, running requests, a database without connections."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

from app.embedding.engine import Engines
from app.settings import Settings
from tests.app.embedding.scripted_engine import ScriptedEngine, flat
from tests.app.running import CAPTURED_AT, embed, running_service


@contextmanager
def scripted_service(settings: Settings, engine: ScriptedEngine) -> Iterator[httpx.Client]:
    """A service that embeds with `engine`, which is released at the end of the context."""
    with running_service(settings, Engines([engine])) as client:
        try:
            yield client
        finally:
            engine.go.set()


@contextmanager
def background() -> Iterator[ThreadPoolExecutor]:
    """Threads for running requests."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def busy_with(engine: ScriptedEngine, client: httpx.Client, threads: ThreadPoolExecutor) -> Future[httpx.Response]:
    """Keep the engine busy with a posted crop of value 0, until `engine.go` is set."""
    engine.go.clear()
    request = threads.submit(embed, client, flat(0))
    assert engine.busy.wait(10)
    return request


@contextmanager
def half_sent(
    client: httpx.Client, path: str, *contents: bytes, share: float = 0.5, **form: Any
) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection that has sent a request's head and this share of its body, and the rest of the body.

    It is closed at the end of the context.
    """
    files = [("files", (f"{index}.png", content)) for index, content in enumerate(contents)]
    request = client.build_request("POST", path, files=files, data=form)
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    body = request.read()
    sent = int(share * len(body))
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + b"\r\n" + body[:sent])
        yield connection, body[sent:]


def metadata() -> dict[str, str]:
    """The form fields that every crop needs."""
    return {"camera_id": "gate", "captured_at": CAPTURED_AT}


def metric(client: httpx.Client, sample: str) -> float:
    """A sample of the service's metrics, by name and labels; 0 where it does not exist yet."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextmanager
def taking_no_connections(url: str) -> Iterator[None]:
    """Close a PostgreSQL database's connections, and refuse new ones until the end of the context."""
    name = make_url(url).database
    assert name is not None
    alter = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute(alter.format(Identifier(name), SQL("false")))
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
        finally:
            connection.execute(alter.format(Identifier(name), SQL("true")))
