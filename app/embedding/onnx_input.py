"""Checks the inputs of an ONNX graph against the checkpoint's metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.checkpoint import CheckpointMetadata
from model.errors import CheckpointError


def check_input(checkpoint: Path, inputs: Mapping[str, Sequence[object]], metadata: CheckpointMetadata) -> None:
    """Compare the sizes of the graph's inputs, without the batch dimension, with the metadata.

    Raises CheckpointError.
    """
    if inputs != {"crops": [*metadata.input.size, 3]}:
        height, width = metadata.input.size
        raise CheckpointError(f"{checkpoint} takes {inputs}, its metadata says crops of {height} x {width}")
