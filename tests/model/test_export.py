"""The ONNX form of a checkpoint is the same network, at any batch size."""

from pathlib import Path

import numpy as np
import pytest
from model_factories import write_checkpoint

from model.architecture import MGNConfig
from model.checkpoint import InputFormat, load_checkpoint
from model.export import export_onnx
from model.loading import inference_of, load_for_inference

pytestmark = pytest.mark.filterwarnings("default")  # the exporter of torch warns of itself


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
    checkpoint = load_checkpoint(tmp_path / "c.safetensors")
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
