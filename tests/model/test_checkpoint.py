"""Checkpoints contain everything needed to use them; a wrong file is a clear error."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.architecture import MGNConfig
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_sha256
from model.errors import CheckpointError
from model.mgn import load_embedder
from tests.model.model_factories import metadata, write_checkpoint


def test_a_checkpoint_survives_saving_and_loading(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path / "c.safetensors")
    read = load_checkpoint(tmp_path / "c.safetensors")
    assert read.metadata == written.metadata
    assert read.metadata.model_id == f"test-{weights_sha256(written.weights)[:12]}"
    assert all((read.weights[name] == tensor).all() for name, tensor in written.weights.items())


def test_half_precision_weights_give_nearly_the_same_embeddings(tmp_path: Path) -> None:
    full = write_checkpoint(tmp_path / "full.safetensors")
    halved = save_checkpoint(
        tmp_path / "half.safetensors", {n: w.astype(np.float16) for n, w in full.weights.items()}, full.metadata
    )
    assert halved.metadata.model_id != full.metadata.model_id
    crops = torch.randint(0, 256, (4, 64, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        cosines = (load_embedder(full)(crops) * load_embedder(halved)(crops)).sum(dim=(1, 2))
    assert cosines.min() > 0.999


def test_a_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no safetensors file"), (b"\x80\x02}q\x00.", "no safetensors file"), (None, "there is no checkpoint")],
)
def test_a_foreign_or_missing_file_is_an_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "c.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_a_truncated_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_a_foreign_safetensors_file_without_metadata_is_an_error(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="no Passerby metadata"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_weights_that_do_not_fit_their_architecture_are_reported(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path / "c.safetensors")
    lacking = dict(written.weights)
    lacking.pop("reductions.0.0.weight")
    with pytest.raises(CheckpointError, match=r"reductions\.0\.0\.weight"):
        load_embedder(Checkpoint(lacking, written.metadata))
    other_metadata = metadata(MGNConfig("resnet50"))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_embedder(Checkpoint(written.weights, other_metadata))
