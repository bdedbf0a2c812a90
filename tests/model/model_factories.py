"""Factories of the library's tests: small networks, checkpoints, and data sets of a few crops."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.architecture import MGNConfig
from model.backbones import build_backbone
from model.checkpoint import Checkpoint, CheckpointMetadata, InputFormat, MeasuredResult, TrainingData, save_checkpoint
from model.mgn import MGN

SMALL = InputFormat(height=64, width=32)

RESULT = MeasuredResult(
    data="Drawn", protocol="6 identities held out", queries=11, rank1=0.912, rank5=0.95, rank10=0.97, map_step=0.834,
    map_trapezoid=0.81, minp=0.5,
)  # fmt: skip


def metadata(config: MGNConfig, input_format: InputFormat = SMALL) -> CheckpointMetadata:
    """The metadata of a checkpoint for tests."""
    return CheckpointMetadata(
        name="test",
        architecture=config,
        input=input_format,
        training_data=TrainingData(name="none", terms="none", identities=0, crops=0),
        recipe={},
    )


def write_checkpoint(path: Path, config: MGNConfig | None = None, input_format: InputFormat = SMALL) -> Checkpoint:
    """An untrained MGN, by default the practical one on MobileNetV2."""
    config = config or MGNConfig("mobilenet_v2", reduction_relu=False, softmax_on="reduced")
    torch.manual_seed(0)
    state = MGN(build_backbone(config), config).state_dict()
    weights = {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    return save_checkpoint(path, weights, metadata(config, input_format))


def write_market(root: Path, identities: int = 6, cameras: int = 3, crops: int = 2) -> Path:
    """A miniature in Market-1501's layout: every identity has its own colour, seen by every camera."""
    for part in ("bounding_box_train", "bounding_box_test", "query"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for pid in range(1, 2 * identities + 1):
        colour = rng.integers(0, 256, 3)
        for camera in range(1, cameras + 1):
            for number in range(crops):
                part = "bounding_box_train" if pid <= identities else "query" if number == 0 else "bounding_box_test"
                noise = rng.integers(-20, 20, (32, 16, 3))
                picture = Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).resize((64, 128))
                picture.save(root / part / f"{pid:04}_c{camera}s1_{number:06}_01.jpg")
    return root
