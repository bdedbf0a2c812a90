"""Services for the tests of the library: one with a tiny checkpoint, and one with the bundled one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import passerby
from app.settings import Settings
from tests.app.running import running_service
from tests.app.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX checkpoint for inputs of 64 x 32 pixels that loads in no time."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.onnx")


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, batch_size=32)


@pytest.fixture
def service(settings: Settings) -> Iterator[str]:
    """The URL of a running service."""
    with running_service(settings) as client:
        yield str(client.base_url)


@pytest.fixture
def client(service: str) -> Iterator[passerby.Client]:
    """A client of the running service."""
    with passerby.Client(service) as client:
        yield client


@pytest.fixture(scope="module")
def bundled_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running service with the bundled checkpoint."""
    with running_service(Settings(data_dir=tmp_path_factory.mktemp("data"), batch_size=8)) as client:
        yield str(client.base_url)
