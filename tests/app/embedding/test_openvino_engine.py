"""OpenVINO: embeddings equal to ONNX Runtime's, bfloat16 only where it is accurate enough, no telemetry."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from app.embedding.engine import EngineError, load_engines
from app.embedding.start_up import check
from app.engine_kinds import EngineKind
from app.kit.processor import has_bfloat16
from app.settings import Settings
from model.checkpoint import BUNDLED
from model.reference import MIN_COSINE, Reference, patches
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint

openvino_engine = pytest.importorskip("app.embedding.openvino_engine")

ONNX = BUNDLED.with_suffix(".onnx")


def referenced(path: Path) -> Path:
    """A tiny checkpoint with reference embeddings."""
    plain = load_engines(write_tiny_checkpoint(path.with_stem("plain"))).workers[0]
    reference = Reference.of(plain.embed, plain.metadata.input.size)
    return write_tiny_checkpoint(path, tiny_metadata().model_copy(update={"reference": reference}))


def test_the_bundled_network_is_the_same_as_by_onnx_runtime() -> None:
    crops = patches(16, load_engines(ONNX).metadata.input.size, seed=4)
    engines = load_engines(ONNX, "openvino", threads=2)
    wanted = load_engines(ONNX, "onnx", threads=2).with_all_cores.embed(crops)
    for engine in engines.distinct:
        check(engine)
        assert (engine.embed(crops) * wanted).sum(axis=(1, 2)).min() > MIN_COSINE
    assert engines.metadata.model_id == load_engines(ONNX).metadata.model_id


def test_calls_from_more_threads_than_it_has_get_their_own_parts(tiny_checkpoint: Path) -> None:
    engine = openvino_engine.OpenVinoEngine(tiny_checkpoint, threads=2, calls=2)
    batches = [patches(1 + seed % 7, (64, 32), seed) for seed in range(64)]
    alone = [engine.embed(crops) for crops in batches]
    start = threading.Barrier(8)

    def embed_all(number: int) -> list[np.ndarray]:
        start.wait()
        return [engine.embed(crops) for crops in batches[number::8]]

    with ThreadPoolExecutor(8) as threads:
        for number, found in enumerate(threads.map(embed_all, range(8))):
            for parts, expected in zip(found, alone[number::8], strict=True):
                assert np.abs(parts - expected).max() < 1e-5


def test_crops_that_do_not_fit_are_an_error_and_others_are_embedded_afterwards(tiny_checkpoint: Path) -> None:
    engine = load_engines(tiny_checkpoint, "openvino", threads=1).workers[0]
    for _ in range(2):
        with pytest.raises(EngineError, match=r"not an array of \(1, 32, 32, 3\)"):
            engine.embed(patches(1, (32, 32), 0))
    assert engine.embed(patches(2, (64, 32), 0)).shape == (2, 8, 256)


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no instructions for bfloat16")
def test_bfloat16_is_used_where_it_reproduces_the_reference_embeddings(tmp_path: Path) -> None:
    assert openvino_engine.best_precision(referenced(tmp_path / "tiny.onnx")) == "bfloat16"
    engines = load_engines(tmp_path / "tiny.onnx", "openvino", threads=2)
    assert [engine.precision for engine in engines.distinct] == ["bfloat16"] * 2  # type: ignore[attr-defined]


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no instructions for bfloat16")
def test_bfloat16_is_not_used_where_it_changes_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled network's embeddings change little, so the limit is raised above their cosine."""
    rough = openvino_engine.OpenVinoEngine(ONNX, threads=1, precision="bfloat16")
    reached = rough.metadata.reference.lowest_cosine(rough.embed, rough.metadata.input.size)
    monkeypatch.setattr(openvino_engine, "BFLOAT16_COSINE", (1 + reached) / 2)
    assert openvino_engine.best_precision(ONNX) == "float32"
    monkeypatch.setattr(openvino_engine, "BFLOAT16_COSINE", reached - 1e-4)
    assert openvino_engine.best_precision(ONNX) == "bfloat16"


def test_bfloat16_is_not_used_without_reference_embeddings(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "plain.onnx", referenced=False)
    assert openvino_engine.best_precision(path) == "float32"


def test_bfloat16_is_not_used_where_the_processor_lacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: False)
    assert openvino_engine.best_precision(referenced(tmp_path / "tiny.onnx")) == "float32"


_LOAD = """
import sys, urllib.request
from pathlib import Path

def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn")):
        print(event, arguments)

sys.addaudithook(refuse)
from app.embedding.engine import EngineError, load_engines
from model.reference import patches
load_engines(Path(sys.argv[1]), "openvino", threads=2).with_all_cores.embed(patches(1, (64, 32), 0))
print(*(name for name, module in sys.modules.items() if "openvino_telemetry" in name and module is not None))
print(*Path.home().iterdir())
"""


def test_no_telemetry_is_sent(tmp_path: Path) -> None:
    """In a separate process, as the import of OpenVINO would send it, by a file in the user's home."""
    home = tmp_path / "home"
    home.mkdir()
    variables = {"HOME": str(home), "USERPROFILE": str(home), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.onnx", referenced=False)  # no precision is logged
    asked = [sys.executable, "-c", _LOAD, str(checkpoint)]
    ended = subprocess.run(asked, env=variables, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_every_engine_can_be_set_and_one_that_is_not_installed_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in get_args(EngineKind):
        assert Settings(engine=kind).engine == kind
    monkeypatch.setattr("app.engine_kinds.find_spec", lambda name: None)
    assert Settings(engine="auto").engine == "auto"
    for kind, extra in (("onnx", "cpu"), ("openvino", "openvino"), ("torch", "gpu")):
        with pytest.raises(ValidationError, match=rf"the {kind} engine needs the extra .* 'passerby\[{extra}\]'"):
            Settings(engine=kind)


@pytest.mark.parametrize(
    ("installed", "kind", "expected"),
    [
        ({"onnxruntime", "openvino", "torch"}, "auto", ONNX),
        ({"onnxruntime", "openvino", "torch"}, "torch", BUNDLED.with_suffix(".safetensors")),
        ({"openvino"}, "auto", ONNX),
        ({"openvino"}, "openvino", ONNX),
        ({"torch"}, "auto", BUNDLED.with_suffix(".safetensors")),
        (set(), "auto", ONNX),
    ],
)
def test_the_bundled_checkpoint_has_a_form_that_the_engine_can_run(
    installed: set[str], kind: EngineKind, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine_kinds.find_spec", lambda name: name in installed or None)
    assert Settings.model_construct(engine=kind).resolved_checkpoint == expected


def test_auto_runs_an_onnx_file_by_openvino_where_onnx_runtime_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.engine_kinds.find_spec", lambda name: name == "openvino" or None)
    assert isinstance(load_engines(ONNX).workers[0], openvino_engine.OpenVinoEngine)
