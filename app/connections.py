"""A connection to a client, which may not send a request as slowly as it likes."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import MEDIA_TYPE, problem_of_status

_log = structlog.get_logger()


@dataclass(frozen=True)
class ConnectionLimits:
    """connections: at the same time, of all clients. header_seconds: for a request's line and headers, and for what is
    left of a body after the answer.
    """

    connections: int
    header_seconds: float


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits, at which a connection ends with an answer.

    uvicorn itself limits how long a connection may be idle after an answer.
    """

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **rest: Any) -> None:
        super().__init__(*arguments, **rest)
        self._request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it if there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.limits.connections:
            self._end(503, "too many connections; try again in a moment")
            return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Limit the time for the headers of each request."""
        super().on_message_begin()
        if self._request_timer is None:
            self._await_request()

    def on_headers_complete(self) -> None:
        """The application limits the time for the body."""
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Limit the time for the rest of a body that the application did not read."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._request_timer = self.loop.call_later(self.limits.header_seconds, self.transport.close)

    def on_message_complete(self) -> None:
        """The body is complete."""
        super().on_message_complete()
        self._stop_timer()

    def _await_request(self) -> None:
        seconds = self.limits.header_seconds
        message = f"the headers of a request did not arrive within {seconds:g} seconds"
        self._request_timer = self.loop.call_later(seconds, self._end, 408, message)

    def _end(self, status: int, detail: str) -> None:
        """Answer with a problem and close."""
        if self.transport.is_closing():
            return
        _log.info("connection ended", status=status, reason=detail, client=self.client and self.client[0])
        problem = problem_of_status(status, detail)
        body = problem.model_dump_json().encode()
        head = (
            f"HTTP/1.1 {status} {problem.title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None


def connection_with(limits: ConnectionLimits) -> type[Connection]:
    """The class of a service's connections; uvicorn makes them."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
