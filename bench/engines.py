"""MGN on ResNet-50 in the engine alone, against torch as in public MGN code and against the CPU's peak."""

import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from app.embedding.engine import Engine, load_engines
from bench.forms import BATCH, COSINE
from bench.networks import count_operations, write_resnet50
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn
from bench.rows import Row, speeds_row
from model.backbones import build_backbone
from model.checkpoint import Checkpoint
from model.decoding import PictureLimits, decode
from model.mgn import MGN, part_scales, weighted_parts
from model.quantisation import export_int8

CROPS = 64


def rows(rounds: int) -> list[Row]:
    """MGN on ResNet-50 from JPEG bytes to embeddings, in one process: our engine, also in int8, and torch.

    The baseline of the last line is the CPU's limit: the speed if all operations were a product of large matrices, its
    fastest arithmetic in float32.
    """
    pictures = Pictures()
    contents = pictures.take(CROPS)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, exported = write_resnet50(Path(folder))
        calibration = as_inputs(pictures.drawn[:CROPS], checkpoint.metadata.input)
        export_int8(checkpoint, Path(folder) / "int8.onnx", calibration, COSINE)
        engine = load_engines(exported).with_all_cores
        int8 = load_engines(Path(folder) / "int8.onnx").with_all_cores
        torch_side = _TorchCode(checkpoint)
        operations = count_operations(torch_side.network, torch.zeros(1, 3, *checkpoint.metadata.input.size))
        speeds = in_turn(
            {
                "ours": lambda: _speed(lambda batch: _embed(engine, batch), contents),
                "int8": lambda: _speed(lambda batch: _embed(int8, batch), contents),
                "torch": lambda: _speed(torch_side.embed, contents),
                "limit": lambda: _operations_a_second() / operations,
            },
            rounds,
        )
        expected = torch_side.embed(contents[:8])
        cosines = [(_embed(side, contents[:8]) * expected).sum(axis=(1, 2)).min() for side in (engine, int8)]
    name, torch_note = f"MGN-ResNet-50 from JPEG, batches of {BATCH}", ", torch eager"
    notes = [f", cosine {cosine:.4f}" for cosine in cosines]
    limit_note = f" by numpy's product of matrices, {operations / 1e9:.1f} GFLOP each"
    return [
        speeds_row(name, speeds["ours"], notes[0], speeds["torch"], torch_note, 2.5),
        speeds_row(f"{name}, int8", speeds["int8"], notes[1], speeds["torch"], torch_note, 2.5),
        speeds_row(name, speeds["ours"], "", speeds["limit"], limit_note, 0.9),
    ]


def _operations_a_second() -> float:
    """Of a product of two square matrices in float32, with all cores."""
    side = 4096
    matrix = np.random.default_rng(0).random((side, side), dtype=np.float32)
    began = time.perf_counter()
    matrix @ matrix
    return 2 * side**3 / (time.perf_counter() - began)


def _embed(engine: Engine, contents: list[bytes]) -> NDArray[np.float32]:
    decoded = [decode(content, PictureLimits(), engine.metadata.input).pixels for content in contents]
    return engine.embed(np.stack(decoded))


def _speed(embed: Callable[[list[bytes]], NDArray[np.float32]], contents: list[bytes]) -> float:
    """Crops a second over consecutive batches."""
    began = time.perf_counter()
    for start in range(0, len(contents), BATCH):
        embed(contents[start : start + BATCH])
    return len(contents) / (time.perf_counter() - began)


class _TorchCode:
    """The pipeline of public MGN code: PIL, torchvision's transforms, an eager float32 network, torch's threads."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config, input_format = checkpoint.metadata.architecture, checkpoint.metadata.input
        self.network = MGN(build_backbone(config), config).eval()
        self.network.load_state_dict({name: torch.tensor(weights) for name, weights in checkpoint.weights.items()})
        self._scales = part_scales(checkpoint.metadata.part_weights)
        self._transform = v2.Compose(
            [
                v2.Resize(input_format.size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(input_format.mean, input_format.std),
            ]
        )

    def embed(self, contents: list[bytes]) -> NDArray[np.float32]:
        """`(N, 8, 256)`."""
        images = torch.stack([self._transform(Image.open(BytesIO(content)).convert("RGB")) for content in contents])
        with torch.no_grad():
            parts: NDArray[np.float32] = weighted_parts(self.network(images).parts, self._scales).numpy()
        return parts
