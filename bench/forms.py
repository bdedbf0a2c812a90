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
    """The bundled model in int8: its speed-up, cosine and loss of mAP; and with flip averaging."""
    checkpoint = load_checkpoint(BUNDLED.with_suffix(".safetensors"))
    crops, split = calibration_crops(checkpoint.metadata.input)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantised = export_int8(checkpoint, path, crops, COSINE)
        export_onnx(with_flip(checkpoint, True), Path(folder) / "flip.onnx")
        int8, flipping, fp32 = (load_engines(one) for one in (path, Path(folder) / "flip.onnx", BUNDLED))
    likeness = f", cosine {quantised.mean_cosine:.4f}, {quantised.left_out} of {quantised.convolutions} layers in fp32"
    lines = [
        _form_row("bundled model in int8", int8, likeness, fp32, crops, batch, 2.5, rounds) for batch in (BATCH, 1)
    ]
    lines += [_drop(int8, fp32, split)] if split else []
    averaged = "bundled model averaged with mirror images"
    return [*lines, _form_row(averaged, flipping, ", another model", fp32, crops, BATCH, 0.45, rounds)]


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
    found = in_turn({"ours": lambda: speed(ours, crops, batch), "fp32": lambda: speed(fp32, crops, batch)}, rounds)
    return speeds_row(f"{name}, batches of {batch}", found["ours"], note, found["fp32"], ", fp32", least)


def speed(engines: Engines, crops: NDArray[np.uint8], batch: int) -> float:
    """Crops a second, as the service uses engines: concurrent batches, and a single crop with all cores."""
    inputs = list(islice(cycle(crops), CROPS))
    batches = [np.stack(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    workers = engines.workers if batch > 1 else [engines.with_all_cores]
    with ThreadPoolExecutor(len(workers)) as threads:
        began = time.perf_counter()
        shares = [batches[number :: len(workers)] for number in range(len(workers))]
        list(threads.map(lambda worker, share: [worker.embed(crops) for crops in share], workers, shares))
        return len(inputs) / (time.perf_counter() - began)


def _drop(int8: Engines, fp32: Engines, split: EvaluationSplit) -> Row:
    networks = [engines.with_all_cores for engines in (int8, fp32)]
    reached = [evaluate(*embed_split(split, one)).metrics.map_step for one in networks]
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
    """Crops to calibrate on and to evaluate on: of Market-1501 if available, else drawn ones and none."""
    if not MARKET.exists():
        return as_inputs(Pictures(CALIBRATION).drawn, input_format), None
    rest, split = hold_out(open_data_set(f"market1501:{MARKET}").train(), HELD_OUT)
    chosen = np.random.default_rng(0).permutation(len(rest))[:CALIBRATION]
    return read_inputs([rest[i].path for i in chosen], input_format), split
