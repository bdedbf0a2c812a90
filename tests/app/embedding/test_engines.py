"""All engines: the same contract, and clear errors for checkpoints that do not fit."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from app.embedding.engine import Engine, EngineError, load_engines
from app.engine_kinds import EngineKind
from model.architecture import PART_DIM, PARTS
from model.checkpoint import METADATA_KEY, save_checkpoint
from model.errors import CheckpointError
from model.transforms import to_input
from tests.app.factories import picture
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint


@pytest.fixture(scope="module")
def torch_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNetV2 MGN with random weights for inputs of 64 x 32 pixels."""
    torch = pytest.importorskip("torch")
    from model.backbones import build_backbone
    from model.mgn import MGN

    metadata = tiny_metadata()
    torch.manual_seed(1)
    mgn = MGN(build_backbone(metadata.architecture), metadata.architecture).eval()
    path = tmp_path_factory.mktemp("torch") / "random.safetensors"
    save_checkpoint(path, {name: tensor.numpy() for name, tensor in mgn.state_dict().items()}, metadata)
    return path


@pytest.fixture(params=["onnx", "openvino", "torch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine on a small checkpoint of its form."""
    if request.param == "openvino":
        pytest.importorskip("app.embedding.openvino_engine")
    fixture = "torch_checkpoint" if request.param == "torch" else "tiny_checkpoint"
    return load_engines(request.getfixturevalue(fixture), request.param, threads=1).workers[0]


@pytest.fixture(params=["onnx", "openvino"])
def onnx_kind(request: pytest.FixtureRequest) -> EngineKind:
    """Each kind of engine for ONNX checkpoints."""
    if request.param == "openvino":
        pytest.importorskip("app.embedding.openvino_engine")
    kind: EngineKind = request.param
    return kind


def crops(seed: int, count: int) -> NDArray[np.uint8]:
    return np.stack([to_input(picture(seed + i), (64, 32), "bilinear") for i in range(count)])


def test_parts_have_their_shape_and_norm(engine: Engine) -> None:
    parts = engine.embed(crops(0, 3))
    assert parts.shape == (3, len(PARTS), PART_DIM)
    assert parts.dtype == np.float32
    assert np.allclose(np.linalg.norm(parts, axis=2), len(PARTS) ** -0.5, atol=1e-4)


def test_the_parts_of_a_crop_do_not_depend_on_its_batch(engine: Engine, seed: int) -> None:
    some = crops(seed, 12)
    alone = np.concatenate([engine.embed(some[i : i + 1]) for i in range(len(some))])
    for count in range(2, len(some) + 1):
        order = np.random.default_rng(seed + count).permutation(len(some))[:count]
        assert np.abs(engine.embed(some[order]) - alone[order]).max() < 1e-5


def test_the_metadata_comes_from_the_checkpoint(engine: Engine) -> None:
    assert engine.metadata.input.size == (64, 32)
    assert engine.metadata.model_id.startswith("tiny-")


@pytest.mark.parametrize(
    ("fixture", "kind"),
    [("tiny_checkpoint", "torch"), ("torch_checkpoint", "onnx"), ("torch_checkpoint", "openvino")],
)
def test_an_engine_that_does_not_fit_the_checkpoint_is_refused(
    fixture: str, kind: EngineKind, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(EngineError, match=f"the {kind} engine cannot run"):
        load_engines(request.getfixturevalue(fixture), kind)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="must end in"):
        load_engines(tmp_path / "weights.pth")


FORMS: list[tuple[EngineKind, str]] = [("onnx", "onnx"), ("openvino", "onnx"), ("torch", "safetensors")]
"""Each kind of engine, with the suffix of what it runs."""


@pytest.mark.parametrize(("kind", "suffix"), FORMS)
def test_a_missing_checkpoint_is_named(kind: EngineKind, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no checkpoint at .*none.{suffix}"):
        load_engines(tmp_path / f"none.{suffix}", kind)


@pytest.mark.parametrize(("kind", "suffix"), FORMS)
def test_a_damaged_checkpoint_is_named(kind: EngineKind, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(b"\x08" * 100)
    with pytest.raises(CheckpointError, match=path.name):
        load_engines(path, kind)


@pytest.mark.parametrize(("kind", "suffix"), FORMS)
def test_an_engine_that_is_not_installed_says_how_to_install_it(
    kind: EngineKind, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("app.embedding.openvino_engine", "app.embedding.torch_engine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for package in ("onnxruntime", "openvino", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    extra = {"onnx": "cpu", "openvino": "openvino", "torch": "gpu"}[kind]
    message = rf"the {kind} engine needs the extra `{extra}`: pip install 'passerby\[{extra}\]'"
    with pytest.raises(EngineError, match=message):
        load_engines(write_tiny_checkpoint(tmp_path / "tiny.onnx").rename(tmp_path / f"tiny.{suffix}"), kind)


def test_an_onnx_file_without_metadata_is_refused(onnx_kind: EngineKind, tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "bare.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="no Passerby metadata"):
        load_engines(path, onnx_kind)


def test_an_onnx_file_for_another_input_is_refused(onnx_kind: EngineKind, tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "other.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: tiny_metadata(128, 64).model_dump_json()})
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"takes \{'crops': \[64, 32, 3\]\}.* 128 x 64"):
        load_engines(path, onnx_kind)


def test_engines_report_their_runtime_and_device(tiny_checkpoint: Path, torch_checkpoint: Path) -> None:
    assert load_engines(tiny_checkpoint, "onnx").runs_on == "the CPU, with ONNX Runtime"
    torch = pytest.importorskip("torch")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU, as torch finds no GPU"
    assert where in load_engines(torch_checkpoint).runs_on
