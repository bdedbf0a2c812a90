"""Runs the service with uvicorn."""

import signal
import sys

import uvicorn

from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; running requests are finished first, then the process exits with 0."""
    configure_logging(settings.log_format, settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn shuts down, then raises the signal again
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
    )
