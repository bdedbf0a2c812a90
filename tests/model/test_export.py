"""Exported checkpoints give the same embeddings at any batch size."""

from pathlib import Path

import numpy as np
import pytest

from model.architecture import MGNConfig
from model.checkpoint import Checkpoint, InputFormat, load_checkpoint
from model.errors import CheckpointError
from model.export import export_half, export_onnx
from model.loading import inference_of, load_for_inference, with_flip, with_reference
from model.quantisation import export_int8
from tests.model.model_factories import RESULT, write_checkpoint

pytestmark = pytest.mark.filterwarnings("default")  # the exporter of torch warns of itself


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "input_format"),
    [
        # 256 pixels give 16 rows, which three stripes do not divide
        (MGNConfig("mobilenet_v2", reduction_relu=False), InputFormat(height=256, width=64, flip=True)),
        (MGNConfig("resnet50", pooling="gem"), InputFormat(height=64, width=32)),
    ],
)
def test_onnx_gives_the_same_embeddings_as_torch(tmp_path: Path, config: MGNConfig, input_format: InputFormat) -> None:
    write_checkpoint(tmp_path / "c.safetensors", config, input_format)
    checkpoint = with_reference(load_checkpoint(tmp_path / "c.safetensors"))
    export_onnx(checkpoint, tmp_path / "c.onnx")
    assert (tmp_path / "c.onnx").stat().st_size < 0.55 * (tmp_path / "c.safetensors").stat().st_size
    exported = load_for_inference(tmp_path / "c.onnx")
    assert exported.metadata == checkpoint.metadata
    rng = np.random.default_rng(0)
    height, width = input_format.size
    for count in (1, 3, 32):
        crops = rng.integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
        cosines = (exported.embed(crops) * inference_of(checkpoint).embed(crops)).sum(axis=(1, 2))
        assert cosines == pytest.approx(np.ones(count), abs=1e-4)
    if input_format.flip:
        assert exported.embed(crops) == pytest.approx(exported.embed(crops[:, :, ::-1]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_onnx_in_single_precision_is_exact_and_twice_as_large(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.safetensors")
    checkpoint = load_checkpoint(tmp_path / "c.safetensors")
    for name, halved in (("half.onnx", True), ("full.onnx", False)):
        export_onnx(checkpoint, tmp_path / name, halved)
    assert (tmp_path / "full.onnx").stat().st_size > 1.8 * (tmp_path / "half.onnx").stat().st_size
    crops = patches(4)
    exact = inference_of(checkpoint).embed(crops)
    assert load_for_inference(tmp_path / "full.onnx").embed(crops) == pytest.approx(exact, abs=1e-5)


def test_a_half_precision_checkpoint_keeps_small_weights_in_float32(tmp_path: Path) -> None:
    """Rounding costs most in biases and norms, and fine-tuning changes them by less than float16 resolves."""
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    export_half(checkpoint, tmp_path / "half.safetensors")
    halved = load_checkpoint(tmp_path / "half.safetensors").weights
    assert {weights.dtype for weights in halved.values()} == {np.dtype(np.float16), np.dtype(np.float32)}
    for name, weights in halved.items():
        if weights.ndim == 1:
            np.testing.assert_array_equal(weights, checkpoint.weights[name])


def patches(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 4, 2, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)


def test_flip_averaging_changes_the_model_id_and_drops_the_results(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path / "c.safetensors")
    plain = Checkpoint(written.weights, written.metadata.model_copy(update={"results": (RESULT,)}))
    averaged = with_flip(plain, True)
    assert averaged.metadata.input.flip
    assert averaged.metadata.model_id == f"{plain.metadata.model_id}-flip"
    assert averaged.metadata.results == ()
    assert with_flip(plain, False) is plain


@pytest.mark.usefixtures("exported_once")
def test_an_int8_export_has_another_model_id_and_nearly_the_same_embeddings(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.safetensors")
    checkpoint = load_checkpoint(tmp_path / "c.safetensors")
    comparison = export_int8(checkpoint, tmp_path / "c.onnx", patches(64), cosine=0.9)
    exported = load_for_inference(tmp_path / "c.onnx")
    assert exported.metadata.model_id == f"{checkpoint.metadata.model_id}-int8"
    assert exported.metadata.sha256 == checkpoint.metadata.sha256
    cosines = (exported.embed(patches(8)) * inference_of(checkpoint).embed(patches(8))).sum(axis=(1, 2))
    assert 0.9 < comparison.mean_cosine < 1
    assert comparison.lowest_cosine <= comparison.mean_cosine
    assert cosines.mean() > 0.85
    assert exported.embed(patches(3)).shape == (3, 8, 256)
    assert 0 <= comparison.left_out < comparison.convolutions


@pytest.mark.usefixtures("exported_once")
def test_an_int8_export_below_the_required_cosine_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.quantisation.GROUP_SIZE", 1000)
    write_checkpoint(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="no choice of layers reaches a mean cosine of 1"):
        export_int8(load_checkpoint(tmp_path / "c.safetensors"), tmp_path / "c.onnx", patches(32), cosine=1.01)
    assert not (tmp_path / "c.onnx").exists()
