"""Fixtures of the tests of the index."""

import os
from collections.abc import Iterator

import pytest

from app.index.port import VectorIndex
from tests.app.index.index_adapters import ADAPTERS, SERVERS, Adapter


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
    from tests.app.index.milvus_factories import index_on  # needs wheels that the fixture looked for

    with index_on(url) as on_server:
        yield on_server
