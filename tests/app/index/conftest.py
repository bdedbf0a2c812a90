"""Fixtures of the tests of the index."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from index_adapters import ADAPTERS, SERVERS, Adapter
from structlog.testing import LogCapture

from app.index import local_storage, snapshots, sync
from app.index.port import VectorIndex
from app.index.row_file import RowFile


@pytest.fixture(autouse=True)
def _close_row_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close all files that a test opened: some tests leave indexes open, as a killed process would."""
    opened: list[RowFile[Any]] = []
    open_file = RowFile.__init__

    def remember(self: RowFile[Any], path: Path, width: int, kind: type[Any]) -> None:
        open_file(self, path, width, kind)
        opened.append(self)

    monkeypatch.setattr(RowFile, "__init__", remember)
    yield
    for file in opened:
        file.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Captures the log events of the index, regardless of the logging configuration of other tests."""
    capture = LogCapture()
    for module in (sync, local_storage, snapshots):
        monkeypatch.setattr(module, "_log", structlog.wrap_logger(None, processors=[capture]))
    return capture


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture
def milvus() -> str:
    if not (url := os.environ.get("TEST_MILVUS_URL")):
        pytest.skip("TEST_MILVUS_URL names no Milvus server")
    return url


@pytest.fixture(params=[*ADAPTERS, *SERVERS])
def index(request: pytest.FixtureRequest, working: Path) -> Iterator[VectorIndex]:
    if request.param in ADAPTERS:
        index = ADAPTERS[request.param].new(working)
        yield index
        index.close()
        return
    url = request.getfixturevalue(SERVERS[request.param])
    from milvus_factories import index_on  # needs wheels that the fixture looked for

    with index_on(url) as on_server:
        yield on_server


@pytest.fixture
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working")
