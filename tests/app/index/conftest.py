"""Fixtures of the tests of the index."""

import os
from collections.abc import Iterator

import pytest
import structlog
from index_adapters import ADAPTERS, SERVERS, Adapter
from structlog.testing import LogCapture

from app.index import local_storage, snapshots, sync
from app.index.port import VectorIndex


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
def index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    if request.param in ADAPTERS:
        index = ADAPTERS[request.param].new()
        yield index
        index.close()
        return
    url = request.getfixturevalue(SERVERS[request.param])
    from milvus_factories import index_on  # needs wheels that the fixture looked for

    with index_on(url) as on_server:
        yield on_server
