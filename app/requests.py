"""Middleware for every request: a path prefix, HEAD, a limit of its body, a request id, one log line, metrics."""

import asyncio
import re
import time
from collections.abc import Mapping
from secrets import token_hex

import structlog
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem_of_status
from app.handlers import respond
from app.kit.paths import path_of

_HEADER = "X-Request-ID"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/health/", "/metrics")

MAX_SMALL_BODY = 256 * 1024
"""Bytes of a JSON body, and of any other that is no multipart form."""

MIN_BYTES_A_SECOND = 8 * 1024

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
    """ASGI middleware that refuses large bodies, by their declared length or as soon as they exceed the limit, and slow
    ones.
    """

    def __init__(self, app: ASGIApp, multipart_bytes: Mapping[str, int], seconds: float) -> None:
        """multipart_bytes: the limits of multipart forms by path; other bodies have a small one, MAX_SMALL_BODY.

        seconds: how long a client may pause within a body; on average it must also send MIN_BYTES_A_SECOND.
        """
        self._app = app
        self._multipart_bytes = multipart_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"
        max_bytes = self._multipart_bytes.get(path_of(scope), MAX_SMALL_BODY) if is_form else MAX_SMALL_BODY
        too_large = f"the request's body is larger than {max_bytes:,} bytes; send less at once"
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            await respond(problem_of_status(413, too_large))(scope, receive, send)
            return
        received, began, more = 0, time.monotonic(), True

        async def limited() -> Message:
            nonlocal received, more
            if not more:  # the next message is the client's disconnect
                return await receive()
            left = began + self._seconds + received / MIN_BYTES_A_SECOND - time.monotonic()
            try:
                async with asyncio.timeout(min(left, self._seconds)):
                    message = await receive()
            except TimeoutError as error:
                slow = "the request's body came too slowly; send less at once, or over a faster connection"
                raise HTTPException(408, slow, {"Connection": "close"}) from error
            received += len(message.get("body", b""))
            more = message.get("more_body", False)
            if received > max_bytes:
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, limited, send)


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
                client=(scope.get("client") or [None])[0],
                method=scope["method"],
                path=path,
                status=status,
                seconds=round(seconds, 4),
            )
