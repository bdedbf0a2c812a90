"""`python -m model export`: a checkpoint in another form, proved to give the same embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from model.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from model.commands.common import console
from model.errors import CheckpointError
from model.loading import read_metadata


def export(
    checkpoint: Annotated[Path, typer.Option(help="A .safetensors checkpoint")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write, or a .safetensors file of half the size")],
    results_of: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same recipe with identities held out, to tell its results")
    ] = None,
) -> None:
    """Write a checkpoint in another form, and prove that it gives the same embeddings."""
    from model.export import export_half, export_onnx

    loaded = load_checkpoint(checkpoint)
    if results_of is not None:
        loaded = _with_results_of(read_metadata(results_of), loaded)
    cosine = export_half(loaded, out) if out.suffix == ".safetensors" else export_onnx(loaded, out)
    loaded = load_checkpoint(out) if out.suffix == ".safetensors" else loaded
    size = out.stat().st_size / 1e6
    console.print(f"{out}: {size:.1f} MB, {loaded.metadata.model_id}, lowest cosine to the checkpoint {cosine:.6f}")


def _with_results_of(judged: CheckpointMetadata, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint trained on everything cannot be judged on what it has seen; its recipe can."""
    if judged.recipe != checkpoint.metadata.recipe:
        raise CheckpointError(f"{judged.model_id} was trained by another recipe: its results say nothing of this one")
    results = tuple(
        result.model_copy(update={"protocol": f"the same recipe trained on the others; {result.protocol}"})
        for result in judged.results
    )
    return Checkpoint(checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
