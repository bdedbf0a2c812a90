"""The bundled model against its other forms: int8, and with flip averaging."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedding.engine import Engines, load_engines
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn
from bench.rows import Row, speeds_row
from model.checkpoint import BUNDLED, InputFormat, load_checkpoint
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out
from model.evaluate import embed_split, evaluate
from model.export import export_onnx
from model.loading import with_flip
from model.pictures import read_inputs
from model.quantisation import export_int8

MARKET = Path(__file__).parents[2] / "shared" / "data" / "market1501"
HELD_OUT = 100
CALIBRATION = 256
COSINE = 0.99
BATCH = 16
CROPS = 640


def rows(rounds: int) -> list[Row]:
    """The bundled model in int8, with its cosine and its loss of mAP, and with flip averaging, against float32."""
    checkpoint = load_checkpoint(BUNDLED.with_suffix(".safetensors"))
    crops, split = calibration_crops(checkpoint.metadata.input)
    with tempfile.TemporaryDirectory() as folder:
        int8_path, flip_path = Path(folder) / "int8.onnx", Path(folder) / "flip.onnx"
        quantised = export_int8(checkpoint, int8_path, crops, COSINE)
        export_onnx(with_flip(checkpoint, True), flip_path)
        int8, flip, fp32 = map(load_engines, (int8_path, flip_path, BUNDLED))

    def row(name: str, ours: Engines, note: str, batch: int, min_ratio: float) -> Row:
        speeds = in_turn({"ours": lambda: speed(ours, crops, batch), "fp32": lambda: speed(fp32, crops, batch)}, rounds)
        return speeds_row(f"{name}, batches of {batch}", speeds["ours"], note, speeds["fp32"], ", fp32", min_ratio)

    note = f", cosine {quantised.mean_cosine:.4f}, {quantised.left_out} of {quantised.convolutions} layers in fp32"
    lines = [row("bundled model in int8", int8, note, batch, 2.5) for batch in (BATCH, 1)]
    lines += [_map_loss(int8, fp32, split)] if split else []
    return [*lines, row("bundled model averaged with mirror images", flip, ", another model", BATCH, 0.45)]


def speed(engines: Engines, crops: NDArray[np.uint8], batch: int) -> float:
    """Crops a second, with engines used as in the service: concurrent batches, or single crops with all cores."""
    inputs = list(islice(cycle(crops), CROPS))
    batches = [np.stack(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    workers = engines.workers if batch > 1 else [engines.with_all_cores]
    with ThreadPoolExecutor(len(workers)) as threads:
        began = time.perf_counter()
        shares = [batches[number :: len(workers)] for number in range(len(workers))]
        list(threads.map(lambda worker, share: [worker.embed(inputs) for inputs in share], workers, shares))
        return len(inputs) / (time.perf_counter() - began)


def _map_loss(int8: Engines, fp32: Engines, split: EvaluationSplit) -> Row:
    our_map, base_map = (
        100 * evaluate(*embed_split(split, engines.with_all_cores)).metrics.map_step for engines in (int8, fp32)
    )
    loss = base_map - our_map
    return Row(
        f"int8, mAP on {HELD_OUT} held-out identities",
        f"{our_map:.2f} %",
        f"{base_map:.2f} %, fp32",
        f"{loss:.2f} less",
        "0.5 less at most",
        loss <= 0.5,
    )


def calibration_crops(input_format: InputFormat) -> tuple[NDArray[np.uint8], EvaluationSplit | None]:
    """Crops to calibrate with, and a split to evaluate on: of Market-1501 if available, else drawn crops and None."""
    if not MARKET.exists():
        return as_inputs(Pictures(CALIBRATION).drawn, input_format), None
    rest, split = hold_out(open_data_set(f"market1501:{MARKET}").train(), HELD_OUT)
    chosen = np.random.default_rng(0).permutation(len(rest))[:CALIBRATION]
    return read_inputs([rest[i].path for i in chosen], input_format), split
