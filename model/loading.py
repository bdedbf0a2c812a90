"""Loading checkpoints, .safetensors or .onnx, for inference outside the service."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.architecture import PART_DIM, PARTS
from model.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from model.errors import CheckpointError
from model.onnx_session import open_session, run_session
from model.reference import Reference

if TYPE_CHECKING:
    import torch

    from model.evaluate import Embed  # with what evaluations need, such as faiss
    from model.plain_network import PlainNetwork


@dataclass(frozen=True)
class Inference:
    """`embed` takes `(N, height, width, 3)` uint8 RGB of the metadata's input size and gives `(N, 8, 256)` float32."""

    metadata: CheckpointMetadata
    embed: "Embed"


def read_metadata(path: Path) -> CheckpointMetadata:
    """The metadata of a .safetensors or .onnx checkpoint. Raises CheckpointError."""
    return load_for_inference(path).metadata if path.suffix == ".onnx" else load_checkpoint(path).metadata


def load_any_network(path: Path) -> "Inference | PlainNetwork":
    """Load a .safetensors or .onnx checkpoint, or a plain network, for inference. Raises CheckpointError.

    Torch runs it on the GPU if there is one.
    """
    if path.suffix != ".onnx":
        from model.plain_network import is_plain_network, load_network

        if is_plain_network(path):
            plain = load_network(path)
            plain.network.to(_fastest_device())
            return plain
    return load_for_inference(path)


def load_for_inference(path: Path, flip: bool | None = None) -> Inference:
    """Load a `.onnx` checkpoint with ONNX Runtime, any other with torch.

    flip: overrides the checkpoint's flip averaging, except that of an ONNX file. Raises CheckpointError.
    """
    if path.suffix != ".onnx":
        checkpoint = load_checkpoint(path)
        return inference_of(checkpoint if flip is None else with_flip(checkpoint, flip))
    session, metadata = open_session(path)
    if flip not in (None, metadata.input.flip):
        raise CheckpointError(
            f"{path} was exported with flip averaging {'on' if metadata.input.flip else 'off'}: "
            "only a .safetensors checkpoint can change that"
        )
    return Inference(metadata, partial(_embed, path, session))


def _embed(path: Path, session: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`run_session`. Raises CheckpointError if the graph is not one that `export` writes."""
    try:
        parts = run_session(session, crops)
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise CheckpointError(f"{path} cannot embed crops: {error}; write it again with `export`") from error
    if parts.shape != (len(crops), len(PARTS), PART_DIM):
        raise CheckpointError(
            f"{path} gives {parts.shape} for {len(crops)} crops, not {len(PARTS)} parts of {PART_DIM} numbers for each"
        )
    return parts


def inference_of(checkpoint: Checkpoint) -> Inference:
    """Load a checkpoint in memory with torch, on the GPU if there is one. Raises CheckpointError."""
    import torch

    from model.mgn import load_embedder

    device = _fastest_device()
    embedder = load_embedder(checkpoint).to(device)

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts: NDArray[np.float32] = embedder(torch.from_numpy(crops).to(device)).cpu().numpy()
        return parts

    return Inference(checkpoint.metadata, embed)


def _fastest_device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def with_reference(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its embeddings of the reference crops. Raises CheckpointError."""
    reference = Reference.of(inference_of(checkpoint).embed, checkpoint.metadata.input.size)
    return Checkpoint(checkpoint.weights, checkpoint.metadata.model_copy(update={"reference": reference}))


def with_flip(checkpoint: Checkpoint, flip: bool) -> Checkpoint:
    """The checkpoint with flip averaging on or off.

    A change drops the results, calibration and reference, which no longer apply.
    """
    metadata = checkpoint.metadata
    if metadata.input.flip == flip:
        return checkpoint
    input_format = metadata.input.model_copy(update={"flip": flip})
    changes = {"input": input_format, "results": (), "calibration": None, "reference": None}
    return Checkpoint(checkpoint.weights, metadata.model_copy(update=changes))
