"""The engine alone: beside torch as public MGN code runs it, and in 8-bit integers beside single precision."""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from app.embedding.decoding import PictureLimits, decode
from app.embedding.engine import Engine, Engines, load_engines
from bench.networks import write_resnet50
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn, median_ratio
from bench.rows import Row
from model.backbones import build_backbone
from model.checkpoint import BUNDLED, Checkpoint, InputFormat, load_checkpoint
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out
from model.evaluate import embed_split, evaluate_features
from model.export import export_onnx
from model.loading import with_flip
from model.mgn import MGN, unit_parts
from model.pictures import read_inputs
from model.quantisation import export_int8

MARKET = Path(__file__).parents[2] / "shared" / "data" / "market1501"
HELD_OUT = 100
CALIBRATION = 256
COSINE = 0.99
BATCH = 16
CROPS = 64
"""Of a round of the large network; of the bundled one, which is so much quicker, ten times as many."""


def rows(rounds: int) -> list[Row]:
    """MGN on ResNet-50 from JPEG bytes to embeddings, in one process: our engine, also in 8-bit integers, and torch.

    The last line says what the processor has to give: how many crops a second its fastest arithmetic in single
    precision, a product of large matrices, would be enough for.
    """
    pictures = Pictures()
    contents = pictures.take(CROPS)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, exported = write_resnet50(Path(folder))
        calibration = as_inputs(pictures.drawn[:CROPS], checkpoint.metadata.input)
        export_int8(checkpoint, Path(folder) / "int8.onnx", calibration, COSINE)
        engine = _for_lone_batches(load_engines(exported))
        int8 = _for_lone_batches(load_engines(Path(folder) / "int8.onnx"))
        torch_side = _TorchCode(checkpoint)
        limit = _operations_a_crop(torch_side.network, checkpoint.metadata.input)
        found = in_turn(
            {
                "ours": lambda: _speed(lambda some: _embed(engine, some), contents),
                "int8": lambda: _speed(lambda some: _embed(int8, some), contents),
                "torch": lambda: _speed(torch_side.embed, contents),
                "limit": lambda: _operations_a_second() / limit,
            },
            rounds,
        )
        wanted = torch_side.embed(contents[:8])
        cosines = [float((_embed(one, contents[:8]) * wanted).sum(axis=(1, 2)).min()) for one in (engine, int8)]
    name = f"MGN-ResNet-50 from JPEG, batches of {BATCH}"
    return [
        _beside(name, found, "ours", f", cosine {cosines[0]:.4f}", "torch", ", torch eager", 2.5),
        _beside(f"{name}, int8", found, "int8", f", cosine {cosines[1]:.4f}", "torch", ", torch eager", 2.5),
        _beside(
            name, found, "ours", "", "limit", f" by numpy's product of matrices, {limit / 1e9:.1f} GFLOP each", 0.9
        ),
    ]


def _beside(
    name: str, found: dict[str, list[float]], ours: str, our_note: str, other: str, note: str, least: float
) -> Row:
    ratio = median_ratio(found[ours], found[other])
    return Row(
        name,
        f"{statistics.median(found[ours]):.1f} crops/s{our_note}",
        f"{statistics.median(found[other]):.1f} crops/s{note}",
        f"{ratio:.2f}",
        f"{least} or more",
        ratio >= least,
    )


def _operations_a_crop(network: MGN, given: InputFormat) -> float:
    """Floating-point operations, two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, *given.size))
    return float(counter.get_total_flops())


def _operations_a_second(side: int = 4096) -> float:
    """Of a product of two square matrices in single precision, with all cores."""
    matrix = np.random.default_rng(0).random((side, side), dtype=np.float32)
    began = time.perf_counter()
    matrix @ matrix
    return 2 * side**3 / (time.perf_counter() - began)


def int8_rows(rounds: int) -> list[Row]:
    """The bundled model in 8-bit integers: how much quicker, how alike, and what it costs in mAP; and flipping."""
    checkpoint = load_checkpoint(BUNDLED.with_suffix(".safetensors"))
    crops, split = calibration_crops(checkpoint.metadata.input)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantised = export_int8(checkpoint, path, crops, COSINE)
        export_onnx(with_flip(checkpoint, True), Path(folder) / "flip.onnx")
        int8, flipping, fp32 = (load_engines(one) for one in (path, Path(folder) / "flip.onnx", BUNDLED))
    likeness = f"cosine {quantised.mean_cosine:.4f}, {quantised.left_out} of {quantised.convolutions} layers in fp32"
    lines = [
        _form_row("bundled model in int8", int8, likeness, fp32, crops, batch, 2.5, rounds) for batch in (BATCH, 1)
    ]
    lines += [_drop(int8, fp32, split)] if split else []
    averaged = "bundled model averaged with mirror images"
    return [*lines, _form_row(averaged, flipping, "another model", fp32, crops, BATCH, 0.45, rounds)]


def _form_row(
    name: str,
    ours: Engines,
    note: str,
    fp32: Engines,
    crops: NDArray[np.uint8],
    batch: int,
    least: float,
    rounds: int,
) -> Row:
    """As the service uses engines: batches side by side, and a lone crop with all cores."""
    inputs = list(islice(cycle(crops), 10 * CROPS))
    batches = [np.stack(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]

    def speed(engines: Engines) -> float:
        workers = engines.workers if batch > 1 else [_for_lone_batches(engines)]
        with ThreadPoolExecutor(len(workers)) as threads:
            began = time.perf_counter()
            shares = [batches[number :: len(workers)] for number in range(len(workers))]
            list(threads.map(lambda worker, share: [worker.embed(crops) for crops in share], workers, shares))
            return len(inputs) / (time.perf_counter() - began)

    found = in_turn({"ours": lambda: speed(ours), "fp32": lambda: speed(fp32)}, rounds)
    ratio = median_ratio(found["ours"], found["fp32"])
    return Row(
        f"{name}, batches of {batch}",
        f"{statistics.median(found['ours']):.0f} crops/s, {note}",
        f"{statistics.median(found['fp32']):.0f} crops/s, fp32",
        f"{ratio:.2f}",
        f"{least} or more",
        ratio >= least,
    )


def _drop(int8: Engines, fp32: Engines, split: EvaluationSplit) -> Row:
    engines = [_for_lone_batches(one) for one in (int8, fp32)]
    reached = [
        evaluate_features(*embed_split(split, engine.metadata.input, engine.embed)).map_step for engine in engines
    ]
    drop = 100 * (reached[1] - reached[0])
    return Row(
        f"int8, mAP on {HELD_OUT} held-out identities",
        f"{100 * reached[0]:.2f} %",
        f"{100 * reached[1]:.2f} %, fp32",
        f"{drop:.2f} less",
        "0.5 less at most",
        drop <= 0.5,
    )


def calibration_crops(input_format: InputFormat) -> tuple[NDArray[np.uint8], EvaluationSplit | None]:
    """Crops to calibrate on, and others to judge on: of Market-1501 where it is at hand, else drawn and none."""
    if not MARKET.exists():
        return as_inputs(Pictures(CALIBRATION).drawn, input_format), None
    rest, split = hold_out(open_data_set(f"market1501:{MARKET}").train(), HELD_OUT)
    chosen = np.random.default_rng(0).permutation(len(rest))[:CALIBRATION]
    return read_inputs([rest[i].path for i in chosen], input_format), split


def _for_lone_batches(engines: Engines) -> Engine:
    """The engine that takes all cores."""
    return engines.lone or engines.workers[0]


def _embed(engine: Engine, contents: list[bytes]) -> NDArray[np.float32]:
    decoded = [decode(content, PictureLimits(), engine.metadata.input).pixels for content in contents]
    return engine.embed(np.stack(decoded))


def _speed(embed: Callable[[list[bytes]], NDArray[np.float32]], contents: list[bytes]) -> float:
    """Crops a second, batch after batch."""
    began = time.perf_counter()
    for start in range(0, len(contents), BATCH):
        embed(contents[start : start + BATCH])
    return len(contents) / (time.perf_counter() - began)


class _TorchCode:
    """What public MGN code does: PIL, torchvision's transforms, an eager network in float32 with torch's threads."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config, given = checkpoint.metadata.architecture, checkpoint.metadata.input
        self.network = MGN(build_backbone(config.backbone), config).eval()
        self.network.load_state_dict({name: torch.tensor(weights) for name, weights in checkpoint.weights.items()})
        self._transform = v2.Compose(
            [
                v2.Resize(given.size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(given.mean, given.std),
            ]
        )

    def embed(self, contents: list[bytes]) -> NDArray[np.float32]:
        """`(N, 8, 256)`."""
        images = torch.stack([self._transform(Image.open(BytesIO(one)).convert("RGB")) for one in contents])
        with torch.no_grad():
            parts: NDArray[np.float32] = unit_parts(self.network(images).parts).numpy()
        return parts
