"""`python -m bench.beside_openvino`: the bundled network by OpenVINO (`pip install openvino`) beside ONNX Runtime."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from rich.console import Console

from bench.forms import COSINE, calibration_crops
from bench.rounds import in_turn
from bench.rows import Row, show, speeds_row
from model.checkpoint import BUNDLED, load_checkpoint
from model.onnx_session import open_session, run_session
from model.quantisation import export_int8

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

CROPS = 320
BATCHES = (16, 1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over")
    rounds = parser.parse_args().rounds
    checkpoint = load_checkpoint(BUNDLED.with_suffix(".safetensors"))
    crops, _ = calibration_crops(checkpoint.metadata.input)
    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8.onnx"
        export_int8(checkpoint, int8, crops, COSINE)
        pairs = [
            ("float32", _by_onnx_runtime(BUNDLED), _by_openvino(BUNDLED, "f32")),
            ("bfloat16 beside float32", _by_onnx_runtime(BUNDLED), _by_openvino(BUNDLED, "bf16")),
            ("int8", _by_onnx_runtime(int8), _by_openvino(int8, "f32")),
        ]
        rows = [_row(*pair, batch, crops, rounds) for pair in pairs for batch in BATCHES]
    show(rows, Console())


def _row(name: str, runtime: Embed, vino: Embed, batch: int, crops: NDArray[np.uint8], rounds: int) -> Row:
    batches = [np.take(crops, range(start, start + batch), axis=0, mode="wrap") for start in range(0, CROPS, batch)]

    def speed(embed: Embed) -> float:
        began = time.perf_counter()
        for some in batches:
            embed(some)
        return CROPS / (time.perf_counter() - began)

    found = in_turn({"runtime": lambda: speed(runtime), "vino": lambda: speed(vino)}, rounds)
    cosine = float((runtime(crops[:64]) * vino(crops[:64])).sum(axis=(1, 2)).mean())
    version = f", OpenVINO {openvino.__version__[:6]}, cosine {cosine:.4f}"
    return speeds_row(f"{name}, batches of {batch}", found["runtime"], ", ONNX Runtime", found["vino"], version, 1)


def _by_onnx_runtime(path: Path) -> Embed:
    session, _ = open_session(path)
    return lambda crops: run_session(session, crops)


def _by_openvino(path: Path, precision: str) -> Embed:
    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts: NDArray[np.float32] = request.infer({"crops": crops})["parts"].copy()
        return parts

    return embed


if __name__ == "__main__":
    main()
