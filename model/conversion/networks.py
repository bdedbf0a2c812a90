"""Conversion of a network of Open Model Zoo into a plain network."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from model.architecture import OMZ_INPUT, PART_DIM
from model.checkpoint import UNKNOWN_DATA, InputFormat, TrainingData, Weights
from model.conversion.convert import Parity, compare_with_source
from model.conversion.omz import convert_omz
from model.mgn import Normalise
from model.osnet import OMZOSNet
from model.plain_network import NetworkMetadata

_UNKNOWN = TrainingData(name=UNKNOWN_DATA, terms="network: Apache-2.0; its data: not named", identities=0, crops=0)


class ConvertedNetwork(NamedTuple):
    """A plain network in memory. constants: the number of constants in its file, all of which are used."""

    weights: Weights
    metadata: NetworkMetadata
    constants: int


def convert_network(path: Path, name: str, data: TrainingData | None = None) -> ConvertedNetwork:
    """Convert the IR of a person-reidentification-retail network into a plain network called `name`.

    data: the training data, if known. Raises CheckpointError.
    """
    converted = convert_omz(path)
    height, width = OMZ_INPUT
    digests = ", ".join(
        f"{file.name} (SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()})"
        for file in (path, path.with_suffix(".bin"))
    )
    metadata = NetworkMetadata(
        name=name,
        backbone="osnet_omz",
        channels=converted.channels,
        input=InputFormat(height=height, width=width, mean=converted.mean, std=converted.std),
        training_data=data or _UNKNOWN,
        source=digests,
    )
    weights = {name: tensor.numpy() for name, tensor in converted.weights.items()}
    return ConvertedNetwork(weights, metadata, converted.constants)


def check_network(weights: Weights, metadata: NetworkMetadata, path: Path) -> Parity:
    """Compare a converted network's features with those of its source network in a file.

    See `compare_with_source`. Raises CheckpointError.
    """
    network, normalise = OMZOSNet(metadata.channels).eval(), Normalise(metadata.input)
    network.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    return compare_with_source(lambda crops: network(normalise(crops)), metadata.input.size, PART_DIM, path)
