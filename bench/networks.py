"""MGN on ResNet-50 with random weights, which is measured besides the bundled model; the operations of a network."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.architecture import MGNConfig
from model.backbones import build_backbone
from model.checkpoint import Checkpoint, CheckpointMetadata, InputFormat, TrainingData, save_checkpoint
from model.loading import with_reference
from model.mgn import MGN


def write_resnet50(folder: Path) -> tuple[Checkpoint, Path]:
    """Write the paper's MGN on ResNet-50 at 384 x 128, and return it and its ONNX file."""
    from model.export import export_onnx  # imports onnx, which a machine with only torch may lack

    checkpoint = save_resnet50(folder)
    export_onnx(checkpoint, folder / "resnet50.onnx")
    return checkpoint, folder / "resnet50.onnx"


def save_resnet50(folder: Path) -> Checkpoint:
    """Write it to `resnet50.safetensors`, with reference embeddings."""
    config = MGNConfig()
    torch.manual_seed(0)
    state = MGN(build_backbone(config), config).state_dict()
    weights = {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    metadata = CheckpointMetadata(
        name="mgn-resnet50-random",
        architecture=config,
        input=InputFormat(height=384, width=128),
        training_data=TrainingData(name="none", terms="random weights", identities=0, crops=0),
        recipe={},
    )
    described = with_reference(Checkpoint(weights, metadata))
    return save_checkpoint(folder / "resnet50.safetensors", described.weights, described.metadata)


def count_operations(network: nn.Module, inputs: torch.Tensor) -> float:
    """Floating-point operations for these inputs, two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode(False), torch.no_grad():
        network(inputs)
    return float(counter.get_total_flops())
