"""Middleware for every request: a path prefix, HEAD, a limit of its body, a request id, one log line, metrics."""

import re
import time
from collections.abc import Mapping
from secrets import token_hex

import structlog
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.paths import path_of

_HEADER = "X-Request-ID"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/health/", "/metrics")

_log = structlog.get_logger("app.requests")


class RootPath:
    """ASGI middleware that serves under a path prefix, whether or not a proxy strips it from requests.

    It makes of both the path that ASGI wants: with the prefix, which the scope names as its `root_path`.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, prefix = scope["path"], self._prefix
        if path != prefix and not path.startswith(f"{prefix}/"):
            scope = {**scope, "path": prefix + path, "raw_path": prefix.encode() + scope["raw_path"]}
        await self._app({**scope, "root_path": prefix}, receive, send)


class HeadAsGet:
    """ASGI middleware that answers HEAD as GET; the server sends no body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        await self._app(as_get, receive, send)
        scope["route"] = as_get.get("route")  # for the log


class BodyLimit:
    """ASGI middleware that refuses large bodies, by their declared length or as soon as they exceed the limit."""

    def __init__(self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int]) -> None:
        """by_path: the limits in bytes of paths that do not have the general one."""
        self._app = app
        self._max_bytes = max_bytes
        self._by_path = by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._by_path.get(path_of(scope), self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        received = int(declared) if declared.isdecimal() and int(declared) > max_bytes else 0

        async def counted() -> Message:
            nonlocal received
            if received <= max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= max_bytes:
                    return message
            raise HTTPException(413, f"the request's body is larger than {max_bytes:,} bytes; send less at once")

        await self._app(scope, counted, send)


class RequestLog:
    """ASGI middleware that logs and measures requests. The response has the request's X-Request-ID, or a new one."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "passerby_http_request_seconds",
            "Time from a request's first byte to its answer's last",
            ["method", "route", "status"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _VALID.fullmatch(given) else token_hex(8)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route, path = getattr(scope.get("route"), "path", "unknown"), path_of(scope)
        self._seconds.labels(scope["method"], route, status).observe(seconds)
        if not path.startswith(_QUIET):
            _log.info(
                "request",
                method=scope["method"],
                path=path,
                status=status,
                seconds=round(seconds, 4),
            )
