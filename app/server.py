"""Runs the service with uvicorn, after everything that it needs was checked."""

import asyncio
import errno
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.connections import ConnectionLimits, connection_with
from app.gallery.images import ImageStore
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings
from app.start_errors import StartError, start_error

_log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; running requests are finished first, then the process exits with 0.

    Raises StartError for whatever keeps the service from starting: folders are checked first, then the port, the
    database, the server of the index and the checkpoint.
    """
    configure_logging(settings.log_format, settings.log_level)
    os.umask(0o077)  # pictures of people and the database are this user's alone
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn shuts down, then raises the signal again
    try:
        check_folders(settings)
        sockets = bound_sockets(settings.host, settings.port)
        app = _StartWatch(create_app(settings), [_url(bound) for bound in sockets])
        _run(app, settings, sockets)
    except Exception as error:
        raise start_error(error, settings) from error


def _run(app: "_StartWatch", settings: Settings, sockets: list[socket.socket]) -> None:
    config = server_config(app, settings)
    try:
        uvicorn.Server(config).run(sockets)
    except (KeyboardInterrupt, SystemExit) as end:
        if app.error is None and isinstance(end, SystemExit):
            raise
    if app.error is not None:
        raise app.error


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    limits = ConnectionLimits(settings.max_connections, settings.header_seconds)
    return uvicorn.Config(
        app,
        http=connection_with(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )


def check_folders(settings: Settings) -> None:
    """Create the data folder, and write into it and into the image store. Raises StartError."""
    folder = settings.data_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        close_to_others(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartError(
            f"cannot write into the data folder {folder}: {error.strerror}; let this user write there, or set "
            "PASSERBY_DATA_DIR or --data-dir to another folder"
        ) from error
    try:
        asyncio.run(ImageStore(settings.resolved_images_url).check())
    except Exception as error:  # each file system of fsspec has errors of its own
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        place = re.sub(r"//[^/]*@", "//***@", settings.resolved_images_url)  # without a password
        raise StartError(
            f"cannot store pictures in {place}: {reason}; let this user write there, or set PASSERBY_IMAGES_URL to "
            "another place"
        ) from error


def close_to_others(folder: Path) -> None:
    """Let no other user into a folder that versions before 0.3 made, if it is this user's. Raises OSError."""
    if os.name == "posix" and folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)


def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets on each address of a host, which do not listen yet. Raises StartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartError(f"{host} is no address of this machine: set PASSERBY_HOST or --host to one") from error
    sockets = []
    for family, _, _, _, address in dict.fromkeys(found):
        bound = socket.socket(family, socket.SOCK_STREAM)
        sockets.append(bound)
        try:
            _bind(bound, address)
        except OSError as error:
            for other in sockets:
                other.close()
            raise StartError(_why_not_bound(error, host, port)) from error
    return sockets


def _bind(bound: socket.socket, address: tuple[Any, ...]) -> None:
    if sys.platform != "win32":  # there, it would let several programs listen on one port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind(address)


def _why_not_bound(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} of {host} is in use: stop the program that listens there, or take another port with "
                "PASSERBY_PORT or --port"
            )
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: set PASSERBY_HOST or --host to one"
        case errno.EACCES:
            return f"this user may not listen on port {port}: take one above 1023 with PASSERBY_PORT or --port"
        case _:
            return f"cannot listen on port {port} of {host}: {error.strerror}"


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


class _StartWatch:
    """An application that keeps the error of its start or end, which uvicorn would log as a traceback."""

    def __init__(self, app: ASGIApp, urls: Sequence[str]) -> None:
        """urls: where the application will listen."""
        self.error: Exception | None = None
        self._app = app
        self._urls = urls
        self._uvicorn_log = logging.getLogger("uvicorn.error")
        self._uvicorn_log.setLevel(logging.CRITICAL + 1)  # until the start is complete

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._uvicorn_log.setLevel(logging.NOTSET)
                _log.info("listening", urls=list(self._urls))
            await send({key: value for key, value in message.items() if key != "message"})

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            self.error = error
            raise
