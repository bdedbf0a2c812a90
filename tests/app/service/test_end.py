"""After a service has stopped, its process holds none of its networks."""

import gc

from app.embedding.service import EmbeddingService
from app.settings import Settings
from tests.app.running import running_service


def test_an_ended_service_keeps_no_network(settings: Settings) -> None:
    others = _embedding_services()
    with running_service(settings) as client:
        assert client.get("/health/ready").status_code == 200
        assert len(_embedding_services()) == len(others) + 1
    gc.collect()
    assert [service for service in _embedding_services() if service not in others] == []


def _embedding_services() -> list[EmbeddingService]:
    return [thing for thing in gc.get_objects() if type(thing) is EmbeddingService]
