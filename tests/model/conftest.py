"""What the tests of the training module share."""

import shutil
import warnings
from pathlib import Path

import pytest

from model import export, quantisation
from model.checkpoint import Checkpoint
from tests.model.model_factories import write_checkpoint


@pytest.fixture(scope="session")
def default_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX graph of the network that `write_checkpoint` writes by default; torch takes ten seconds for it."""
    folder = tmp_path_factory.mktemp("graph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter of torch warns of itself
        return export.write_graph(write_checkpoint(folder / "c.safetensors"), folder)


@pytest.fixture
def exported_before(monkeypatch: pytest.MonkeyPatch, default_graph: Path) -> None:
    """Torch is not asked again for the graph of that network, which must be the only one that the test exports."""

    def copied(checkpoint: Checkpoint, folder: Path) -> Path:
        return Path(shutil.copy(default_graph, folder))

    for module in (export, quantisation):
        monkeypatch.setattr(module, "write_graph", copied)
