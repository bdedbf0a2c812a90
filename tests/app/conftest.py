"""Fixtures of all tests of the service."""

from pathlib import Path

import pytest
from factories import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX checkpoint for inputs of 64 x 32 pixels that loads in no time."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.onnx")
