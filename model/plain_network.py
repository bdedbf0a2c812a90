"""Converted networks other than MGN: training starts from them or is compared with them."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.checkpoint import InputFormat, TrainingData, Weights, read_safetensors, weights_sha256
from model.errors import CheckpointError, validation_problems
from model.files import write_atomically
from model.frozen import FrozenModel
from model.mgn import Normalise
from model.osnet import OMZOSNet

METADATA_KEY = "passerby-network"
"""The key under which the safetensors file of a plain network holds its metadata as JSON."""

Channels = Annotated[int, Field(ge=16, le=4096, multiple_of=16)]


class NetworkMetadata(FrozenModel):
    """Everything about a plain network but its weights.

    channels: of the stem and of the three stages. source: the files that it was converted from. sha256: of its weights.
    """

    format: Literal[1] = 1
    name: str
    backbone: Literal["osnet_omz"]
    channels: tuple[Channels, Channels, Channels, Channels]
    input: InputFormat
    training_data: TrainingData
    source: str
    sha256: str = ""

    @property
    def model_id(self) -> str:
        """The name with the first digits of the digest."""
        return f"{self.name}-{self.sha256[:12]}"


class PlainNetwork(NamedTuple):
    """A network in memory, ready for inference."""

    network: OMZOSNet
    metadata: NetworkMetadata

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, height, width, 3)` uint8 RGB of the metadata's input size -> `(N, 256)` float32, L2-normalised."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            images = Normalise(self.metadata.input).to(device)(torch.from_numpy(crops).to(device))
            features: NDArray[np.float32] = torch.nn.functional.normalize(self.network(images)).cpu().numpy()
        return features


def save_network(path: Path, weights: Weights, metadata: NetworkMetadata) -> NetworkMetadata:
    """Write a plain network atomically and return its metadata with the SHA-256."""
    metadata = metadata.model_copy(update={"sha256": weights_sha256(weights)})
    content = {name: np.ascontiguousarray(tensor) for name, tensor in weights.items()}
    write_atomically(path, save(content, metadata={METADATA_KEY: metadata.model_dump_json()}))
    return metadata


def is_plain_network(path: Path) -> bool:
    """Whether a file's header is one that `save_network` writes."""
    try:
        with safe_open(path, framework="numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_network(path: Path) -> PlainNetwork:
    """Read a plain network and check its SHA-256. Raises CheckpointError."""
    weights, header = read_safetensors(path)
    text = header.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is no converted network: make one with `python -m model convert NETWORK.xml`")
    try:
        metadata = NetworkMetadata.model_validate_json(text)
    except ValidationError as error:
        problems = validation_problems(error, "metadata")
        raise CheckpointError(f"the metadata of {path} cannot be used: {problems}") from error
    if weights_sha256(weights) != metadata.sha256:
        raise CheckpointError(f"the weights in {path} do not match their SHA-256: the file is damaged")
    network = OMZOSNet(metadata.channels).eval()
    try:
        network.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"the weights in {path} do not fit an OSNet of channels {metadata.channels}: {error}"
        ) from error
    return PlainNetwork(network, metadata)
