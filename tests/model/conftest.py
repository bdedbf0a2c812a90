"""Shared fixtures of the library's tests."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from torch import nn

from model import export
from model.files import atomic_write
from tests.model.evaluation_factories import CommandResult, RunModel, run_model


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunModel:
    """Run `python -m model` in this process, which has imported torch."""

    def run(*arguments: object, **environment: str) -> CommandResult:
        for name, value in ({"COLUMNS": "120"} | environment).items():
            monkeypatch.setenv(name, value)
        return run_model(monkeypatch, capsys, *arguments)

    return run


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ONNX graphs that this run of tests has exported; pytest-xdist's processes share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def exported_once(monkeypatch: pytest.MonkeyPatch, graphs: Path) -> None:
    """Export a network that an earlier test has exported by copying its graph: an export takes seven seconds."""
    export_graph = export.export_graph

    def exported(network: nn.Module, size: tuple[int, int], path: Path, outputs: tuple[str, ...]) -> None:
        graph = graphs / _digest(network, size, outputs)
        if not graph.exists():
            with atomic_write(graph) as temporary:
                export_graph(network, size, temporary, outputs)
        shutil.copy(graph, path)

    monkeypatch.setattr(export, "export_graph", exported)


def _digest(network: nn.Module, *rest: object) -> str:
    """A hash of all that makes a network's graph: layers with their attributes, weights, and the export's arguments."""
    digest = hashlib.sha256(repr((network, rest)).encode())
    for name, module in network.named_modules():
        attributes = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        digest.update(repr((name, type(module), attributes)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
