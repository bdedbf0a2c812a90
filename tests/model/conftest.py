"""Shared fixtures of the library's tests."""

import shutil
import warnings
from pathlib import Path

import pytest

from model import export, quantisation
from model.checkpoint import Checkpoint
from tests.model.model_factories import write_checkpoint


@pytest.fixture(scope="session")
def default_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX graph of `write_checkpoint`'s default network; its export takes ten seconds."""
    folder = tmp_path_factory.mktemp("graph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter of torch warns of itself
        return export.write_graph(write_checkpoint(folder / "c.safetensors"), folder)


@pytest.fixture
def exported_before(monkeypatch: pytest.MonkeyPatch, default_graph: Path) -> None:
    """Replace the export of graphs by copies of `default_graph`, for tests that export no other network."""

    def copied(checkpoint: Checkpoint, folder: Path) -> Path:
        return Path(shutil.copy(default_graph, folder))

    for module in (export, quantisation):
        monkeypatch.setattr(module, "write_graph", copied)
