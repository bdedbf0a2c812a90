"""Reference embeddings in a checkpoint detect an engine that computes wrong embeddings."""

from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import load_checkpoint
from model.export import export_half, export_onnx
from model.loading import inference_of, load_for_inference, with_reference
from model.reference import CROPS, MIN_COSINE, Reference, patches, reference_crops
from tests.model.model_factories import write_checkpoint


def test_the_reference_crops_never_change() -> None:
    crops = reference_crops((64, 32))
    assert crops.shape == (CROPS, 64, 32, 3)
    assert crops[:, ::16, ::16].reshape(CROPS, -1)[:, :4].tolist() == [
        [172, 47, 117, 192],
        [88, 81, 165, 25],
        [142, 167, 32, 193],
        [38, 232, 244, 17],
    ]
    assert patches(2, (50, 20), seed=1).shape == (2, 50, 20, 3)


def test_a_network_with_other_embeddings_has_a_low_cosine() -> None:
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((CROPS, 8, 256)).astype(np.float32)
    reference = Reference.of(lambda _: parts, (64, 32))
    assert reference.lowest_cosine(lambda _: parts * 3, (64, 32)) > 0.99999
    assert reference.lowest_cosine(lambda _: parts[::-1], (64, 32)) < 0.2
    broken = parts.copy()
    broken[2, 0] = np.nan
    assert not reference.lowest_cosine(lambda _: broken, (64, 32)) >= MIN_COSINE


@pytest.mark.usefixtures("exported_once")
def test_every_exported_checkpoint_contains_its_reference(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    assert checkpoint.metadata.reference is None
    described = with_reference(checkpoint)
    export_half(checkpoint, tmp_path / "half.safetensors")
    export_onnx(checkpoint, tmp_path / "c.onnx")
    for inference in (
        inference_of(described),
        inference_of(load_checkpoint(tmp_path / "half.safetensors")),
        load_for_inference(tmp_path / "c.onnx"),
    ):
        assert inference.metadata.reference is not None
        assert inference.metadata.reference.lowest_cosine(inference.embed, inference.metadata.input.size) >= MIN_COSINE
