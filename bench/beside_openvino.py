"""`python -m bench.beside_openvino`: OpenVINO against ONNX Runtime on one checkpoint, in each precision.

The speeds are measured in alternating rounds, with engines used as in the service: a batch on each core, or one crop on
all cores. Cosines are to the float32 embeddings of ONNX Runtime: in the first table of 64 crops, in that of each --data
of its crops, next to rank-1 and mAP.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from app.embedding.engine import Engine, Engines
from app.embedding.onnx_engine import onnx_engines
from app.embedding.openvino_engine import best_precision, openvino_engines
from app.kit.cores import available_cores
from bench.forms import COSINE, calibration_crops, speed
from bench.rounds import in_turn, median_ratio, ratios
from model.checkpoint import BUNDLED, load_checkpoint
from model.commands.places import evaluate_place
from model.commands.splits import choose_split
from model.errors import ModelError
from model.evaluate import embed_split
from model.quantisation import export_int8

BATCHES = (8, 1)
COSINE_CROPS = 64
"""The crops of the first table's cosines."""

_BASE = "ONNX Runtime, float32"
_RUNTIMES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=BUNDLED, help="an .onnx checkpoint; by default the bundled one"
    )
    parser.add_argument(
        "--int8", type=Path, help="its int8 export; by default made from the .safetensors file next to it"
    )
    parser.add_argument("--cores", type=int, default=available_cores(), help="how many to compute with")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over")
    parser.add_argument("--data", action="append", default=[], help="KIND:FOLDER to evaluate on; may be repeated")
    arguments = parser.parse_args()
    source = arguments.checkpoint.with_suffix(".safetensors")
    if arguments.int8 is None and not source.exists():
        parser.error(f"there is no {source} to quantise: give an int8 .onnx file by --int8")
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        try:
            int8 = arguments.int8 or _export_int8(source, Path(folder) / "int8.onnx")
            forms = _forms(arguments.checkpoint, int8, arguments.cores)
            precision = best_precision(arguments.checkpoint)
        except ModelError as error:
            parser.error(str(error))
        crops, _ = calibration_crops(forms[_BASE].metadata.input)
        console.print(_table(forms, crops, arguments.rounds))
        for data in arguments.data:
            console.print(_accuracy(forms, data))
    versions = ", ".join(f"{name} {version(package)}" for name, package in _RUNTIMES.items())
    console.print(f"{forms[_BASE].metadata.model_id}, {arguments.cores} cores, {arguments.rounds} rounds; {versions}")
    console.print(f"The service chooses {precision} in OpenVINO here, and refuses a form whose proof fails.")


def _export_int8(source: Path, path: Path) -> Path:
    checkpoint = load_checkpoint(source)
    crops, _ = calibration_crops(checkpoint.metadata.input)
    export_int8(checkpoint, path, crops, COSINE)
    return path


def _forms(plain: Path, int8: Path, cores: int) -> dict[str, Engines]:
    return {
        _BASE: onnx_engines(plain, cores),
        "OpenVINO, float32": openvino_engines(plain, cores, "float32"),
        "OpenVINO, bfloat16": openvino_engines(plain, cores, "bfloat16"),
        "ONNX Runtime, int8": onnx_engines(int8, cores),
        "OpenVINO, int8": openvino_engines(int8, cores, "float32"),
        "OpenVINO, int8 and bfloat16": openvino_engines(int8, cores, "bfloat16"),
    }


def _table(forms: Mapping[str, Engines], crops: NDArray[np.uint8], rounds: int) -> Table:
    """A line for each form: its speeds, their ratios to the first form's, and the cosines of its embeddings."""
    speeds = {
        batch: in_turn({name: partial(speed, engines, crops, batch) for name, engines in forms.items()}, rounds)
        for batch in BATCHES
    }
    expected = forms[_BASE].with_all_cores.embed(crops[:COSINE_CROPS])
    heads = [head for batch in BATCHES for head in (f"crops/s, batches of {batch}", "ratio, rounds")]
    table = Table("form", *heads, "cosine, mean", "lowest", "proof")
    for name, engines in forms.items():
        cells = [cell for batch in BATCHES for cell in _speed_cells(speeds[batch][name], speeds[batch][_BASE])]
        cosines = (engines.with_all_cores.embed(crops[:COSINE_CROPS]) * expected).sum(axis=(1, 2))
        table.add_row(name, *cells, f"{cosines.mean():.4f}", f"{cosines.min():.4f}", _proof(engines.with_all_cores))
    return table


def _accuracy(forms: Mapping[str, Engines], data: str) -> Table:
    """A line for each form: rank-1 and mAP on a place, and the cosines of its embeddings of the place's crops."""
    chosen = choose_split(data, forms[_BASE].metadata.training_data, None)
    table = Table("form", "rank-1", "mAP (step)", "cosine, mean", "lowest", title=f"{chosen.name}: {chosen.caveat}")
    expected = None
    for name, engines in forms.items():
        network = engines.with_all_cores
        features = embed_split(chosen.split, network)
        metrics = evaluate_place(chosen, features).evaluation.metrics
        embeddings = np.concatenate([part.features for part in features])
        expected = embeddings if expected is None else expected
        cosines = (embeddings * expected).reshape(len(embeddings), -1).sum(axis=1)
        figures = (f"{100 * metrics.rank1:.2f} %", f"{100 * metrics.map_step:.2f} %")
        table.add_row(name, *figures, f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
    return table


def _speed_cells(speeds: list[float], base_speeds: list[float]) -> tuple[str, str]:
    by_round = ratios(speeds, base_speeds)
    ratio = f"{median_ratio(speeds, base_speeds):.2f}, {min(by_round):.2f} to {max(by_round):.2f}"
    return f"{statistics.median(speeds):.0f}", ratio


def _proof(engine: Engine) -> str:
    """The lowest cosine to the reference embeddings in the form's checkpoint."""
    metadata = engine.metadata
    if metadata.reference is None:
        return "none"
    return f"{metadata.reference.lowest_cosine(engine.embed, metadata.input.size):.5f}"


if __name__ == "__main__":
    main()
