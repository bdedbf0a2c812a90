"""What happens to every request: its size is bounded; it gets an id, one log line, and its place in the metrics."""

import re
import time
from collections.abc import Mapping
from secrets import token_hex

import structlog
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADER = "X-Request-ID"
_SOUND = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/health/", "/metrics")

log = structlog.get_logger("app.requests")


class BodyLimit:
    """ASGI middleware. A body that is larger than allowed is refused: by what it declares, or where it gets there."""

    def __init__(self, app: ASGIApp, most_bytes: int, elsewhere: Mapping[str, int]) -> None:
        """elsewhere: the most bytes at addresses that have a limit of their own."""
        self._app = app
        self._most_bytes = most_bytes
        self._elsewhere = elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most_bytes = self._elsewhere.get(scope["path"], self._most_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        received = int(declared) if declared.isdecimal() and int(declared) > most_bytes else 0

        async def counted() -> Message:
            nonlocal received
            if received <= most_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= most_bytes:
                    return message
            raise HTTPException(413, f"the request's body is larger than {most_bytes:,} bytes; send less at once")

        await self._app(scope, counted, send)


class RequestLog:
    """ASGI middleware. A sound X-Request-ID is taken over, else one is made; the answer carries it."""

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
        request_id = given if _SOUND.fullmatch(given) else token_hex(8)
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
                self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._seconds.labels(scope["method"], route, status).observe(seconds)
        if not scope["path"].startswith(_QUIET):
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(seconds, 4),
            )
