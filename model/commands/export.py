"""`python -m model export`: write a checkpoint in another format and compare its embeddings."""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Literal

import numpy as np
import typer

from model.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from model.checks import require_disk, require_output_file, require_pictures
from model.commands.common import MAX_SEED, ThreadsOption, console, require_memory_for, show_notes, show_split
from model.commands.splits import ChosenSplit, choose_part, read_split
from model.datasets import open_data_set
from model.datasets.base import DataSet
from model.errors import CheckpointError, DataError, ModelError
from model.evaluate import embed_split, evaluate
from model.figures import percent, size
from model.loading import load_for_inference, read_metadata, with_flip
from model.pictures import read_inputs

PrecisionOption = Literal["fp32", "fp16", "int8"]

_MIN_CROPS = 2
"""One to calibrate on and one to compare."""

_GRAPHS = 5
"""How many files of the checkpoint's size an export may have in the folder for temporary files."""


def export(
    checkpoint: Annotated[Path, typer.Option(help="A .safetensors checkpoint")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write, or a .safetensors file with float16 weights")],
    precision: Annotated[
        PrecisionOption,
        typer.Option(
            help="Of an .onnx file: fp32; fp16 stores large weights in fp16 and computes in fp32; int8 computes in int8"
        ),
    ] = "fp16",
    data: Annotated[
        str | None,
        typer.Option(help="KIND:FOLDER to calibrate int8 on (training crops) and to evaluate it on"),
    ] = None,
    crops: Annotated[int, typer.Option(min=32, help="How many crops; half for calibration, half for comparison")] = 256,
    cosine: Annotated[float, typer.Option(min=0, max=1, help="The required mean cosine between int8 and fp32")] = 0.99,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the choice of crops")] = 0,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Average with the mirror image, which takes twice the time, or not [default: as the checkpoint says]",
        ),
    ] = None,
    results_of: Annotated[
        Path | None,
        typer.Option(help="Copy the results of this checkpoint of the same recipe, which held identities out"),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Write a checkpoint in another format and check that its embeddings are the same; for int8, nearly the same."""
    require_output_file("--out", out)
    loaded = load_checkpoint(checkpoint)
    weights_size = checkpoint.stat().st_size
    require_disk(out.parent, weights_size, "the exported checkpoint", "choose another --out")
    temporary = Path(gettempdir())
    require_disk(temporary, _GRAPHS * weights_size, "the export", "set TMPDIR to another folder")
    if results_of is not None:
        loaded = _with_results(loaded, read_metadata(results_of))
    if flip is not None:
        loaded = with_flip(loaded, flip)
    if precision == "int8":
        if data is None or out.suffix != ".onnx":
            raise ModelError(
                "--precision int8 needs --data KIND:FOLDER, to calibrate on its crops, and an --out that ends in .onnx"
            )
        _int8(loaded, checkpoint, out, data, crops, seed, cosine)
        return
    if data is not None:
        raise ModelError("--data is for --precision int8: the other formats need no calibration")
    from model.export import export_half, export_onnx

    if out.suffix == ".safetensors":
        lowest = export_half(loaded, out)
    else:
        lowest = export_onnx(loaded, out, halved=precision == "fp16")
    model_id = read_metadata(out).model_id
    console.print(
        f"{out}: {size(out.stat().st_size)}, {model_id}, lowest cosine to the checkpoint {lowest:.6f}", soft_wrap=True
    )


def _int8(loaded: Checkpoint, source: Path, out: Path, data: str, crops: int, seed: int, cosine: float) -> None:
    from model.quantisation import export_int8

    data_set = open_data_set(data)
    samples = data_set.train()
    if len(samples) < _MIN_CROPS:
        raise DataError(
            f"{data_set.name} has {len(samples)} training crops, and int8 needs {_MIN_CROPS} to calibrate on and to "
            "compare: add crops"
        )
    if len(samples) < crops:
        show_notes([f"{data_set.name} has {len(samples)} training crops, fewer than the {crops} of --crops"])
    require_pictures(samples)
    judged = _split_to_compare(data_set, loaded)
    chosen = np.random.default_rng(seed).permutation(len(samples))[:crops]
    pictures = read_inputs([samples[i].path for i in chosen], loaded.metadata.input)
    comparison = export_int8(loaded, out, pictures, cosine)
    console.print(f"{out}: {size(out.stat().st_size)}, {read_metadata(out).model_id}", soft_wrap=True)
    console.print(
        f"cosine to fp32: mean {comparison.mean_cosine:.4f}, lowest {comparison.lowest_cosine:.4f}; "
        f"{comparison.speed_up:.2f} times as fast at batch 16; "
        f"{comparison.left_out} of {comparison.convolutions} convolutions left in fp32",
        soft_wrap=True,
    )
    if judged is not None:
        _show_metrics(source, out, judged)


def _split_to_compare(data_set: DataSet, loaded: Checkpoint) -> ChosenSplit | None:
    """The official test part or the held-out identities; None, with a note, if there is nothing to compare on."""
    trained_on = loaded.metadata.training_data
    part = choose_part(data_set, [trained_on], None)
    if part.kind == "all":
        show_notes(["to compare rank-1 and mAP, `evaluate` both files on identities that training has not seen"])
        return None
    try:
        chosen = read_split(data_set, part, trained_on)
    except DataError as error:
        show_notes([f"rank-1 and mAP are not compared: {error}"])
        return None
    require_memory_for(chosen.split)
    return chosen


def _show_metrics(source: Path, out: Path, chosen: ChosenSplit) -> None:
    """Print rank-1 and mAP of both files."""
    before = load_for_inference(source)
    show_split(chosen, before.metadata)
    for name, network in (("fp32", before), ("int8", load_for_inference(out))):
        metrics = evaluate(*embed_split(chosen.split, network)).metrics
        console.print(f"{name}: rank-1 {percent(metrics.rank1, 2)}, mAP {percent(metrics.map_step, 2)}")


def _with_results(checkpoint: Checkpoint, evaluated: CheckpointMetadata) -> Checkpoint:
    """Copy results between checkpoints of the same recipe: one trained on all data cannot be evaluated itself."""
    if evaluated.recipe != checkpoint.metadata.recipe:
        raise CheckpointError(f"{evaluated.model_id} was trained by another recipe: its results do not apply")
    results = tuple(
        result.model_copy(update={"protocol": f"the same recipe trained on the others; {result.protocol}"})
        for result in evaluated.results
    )
    return Checkpoint(checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
