"""`python -m bench.beside_openvino`: OpenVINO against ONNX Runtime on one checkpoint, in each precision.

All forms are measured in alternating rounds, as the service uses them: one batch a core, or all cores
one crop. Cosines are to the embeddings that ONNX Runtime gives in single precision: of the crops of each --data, whose
rank-1 and mAP a second table shows, or of 64 drawn crops where there is none.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
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
from bench.rounds import in_turn, median_ratio
from model.checkpoint import BUNDLED, load_checkpoint
from model.commands.places import evaluate_place
from model.commands.splits import choose_split
from model.errors import ModelError
from model.evaluate import embed_split
from model.quantisation import export_int8

BATCHES = (8, 1)
COMPARED = 64
"""The number of crops whose embeddings are compared."""

_BASE = "ONNX Runtime, float32"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED, help="an .onnx checkpoint; the bundled one else")
    parser.add_argument(
        "--int8", type=Path, help="its int8 export; by default made from the .safetensors file next to it"
    )
    parser.add_argument("--cores", type=int, default=available_cores(), help="how many to compute with")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken over")
    parser.add_argument("--data", action="append", default=[], help="KIND:FOLDER to evaluate on; may be repeated")
    given = parser.parse_args()
    source = given.checkpoint.with_suffix(".safetensors")
    if given.int8 is None and not source.exists():
        parser.error(f"there is no {source} to make 8-bit integers from: give their .onnx file by --int8")
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        try:
            int8 = given.int8 or _exported(source, Path(folder) / "int8.onnx")
            forms = _forms(given.checkpoint, int8, given.cores)
            chosen = best_precision(given.checkpoint)
        except ModelError as error:
            parser.error(str(error))
        crops, _ = calibration_crops(forms[_BASE].metadata.input)
        console.print(_table(forms, crops, given.rounds))
        for data in given.data:
            console.print(_accuracy(forms, data))
    versions = ", ".join(f"{name} {version(package)}" for name, package in _RUNTIMES.items())
    console.print(f"{forms[_BASE].metadata.model_id}, {given.cores} cores, {given.rounds} rounds; {versions}")
    console.print(f"The service takes {chosen} in OpenVINO here; forms whose proof fails do not serve.")


_RUNTIMES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def _exported(source: Path, path: Path) -> Path:
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
    """A line for each form: its speeds, their ratio to the first one's, and the cosine of its embeddings."""
    found = {
        batch: in_turn({name: _speed_of(engines, crops, batch) for name, engines in forms.items()}, rounds)
        for batch in BATCHES
    }
    wanted = forms[_BASE].with_all_cores.embed(crops[:COMPARED])
    heads = [head for batch in BATCHES for head in (f"crops/s, batches of {batch}", "ratio, rounds")]
    table = Table("form", *heads, "cosine, mean", "lowest", "proof")
    for name, engines in forms.items():
        cells = [cell for batch in BATCHES for cell in _speeds(found[batch][name], found[batch][_BASE])]
        cosines = (engines.with_all_cores.embed(crops[:COMPARED]) * wanted).sum(axis=(1, 2))
        table.add_row(name, *cells, f"{cosines.mean():.4f}", f"{cosines.min():.4f}", _proof(engines.with_all_cores))
    return table


def _accuracy(forms: Mapping[str, Engines], data: str) -> Table:
    """A line for each form: rank-1 and mAP on a place, and the cosine of its embeddings of the place's crops."""
    chosen = choose_split(data, forms[_BASE].metadata.training_data, None)
    table = Table("form", "rank-1", "mAP (step)", "cosine, mean", "lowest", title=f"{chosen.name}: {chosen.standing}")
    wanted = None
    for name, engines in forms.items():
        network = engines.with_all_cores
        features = embed_split(chosen.split, network)
        metrics = evaluate_place(chosen, features).found.metrics
        embeddings = np.concatenate([part.features for part in features])
        wanted = embeddings if wanted is None else wanted
        cosines = (embeddings * wanted).reshape(len(embeddings), -1).sum(axis=1)
        figures = (f"{100 * metrics.rank1:.2f} %", f"{100 * metrics.map_step:.2f} %")
        table.add_row(name, *figures, f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
    return table


def _speed_of(engines: Engines, crops: NDArray[np.uint8], batch: int) -> Callable[[], float]:
    return lambda: speed(engines, crops, batch)


def _speeds(ours: list[float], base: list[float]) -> tuple[str, str]:
    ratios = [one / other for one, other in zip(ours, base, strict=True)]
    median = statistics.median(ours)
    return f"{median:.0f}", f"{median_ratio(ours, base):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"


def _proof(engine: Engine) -> str:
    """The lowest cosine to the reference embeddings in the checkpoint of a form."""
    metadata = engine.metadata
    if metadata.reference is None:
        return "none"
    return f"{metadata.reference.lowest_cosine(engine.embed, metadata.input.size):.5f}"


if __name__ == "__main__":
    main()
