"""`python -m model convert`: convert a checkpoint of public MGN code, or a network of Open Model Zoo."""

from pathlib import Path
from typing import Annotated

import typer

from model.architecture import Pooling
from model.checkpoint import TrainingData, save_checkpoint
from model.checks import require_output_file
from model.commands.common import console
from model.errors import ModelError


def convert(
    file: Annotated[Path, typer.Argument(help="A file of torch.save in that code, or an OpenVINO IR (.xml)")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write")],
    layout: Annotated[
        str | None, typer.Option(help="The repository of that code [default: recognised from the file]")
    ] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="Its pooling, if the file does not say [default: as in that code]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name of the checkpoint [default: the file's name]")] = None,
    trained_on: Annotated[str | None, typer.Option(help="The name of its training data")] = None,
    terms: Annotated[str | None, typer.Option(help="The terms of use of that data")] = None,
    parity: Annotated[
        Path | None, typer.Option(help="NPZ with crops and their features from the source network")
    ] = None,
) -> None:
    """Convert a checkpoint of public MGN code. Every tensor is either used or listed as dropped.

    For an OpenVINO IR of Open Model Zoo's person-reidentification-retail networks, give the .xml; the .bin must be in
    the same folder. The result is a plain network, from which a recipe can start.

    For --parity, run the source network once on some crops, resized but not normalised, without flip averaging, and
    save both: numpy.savez(FILE, crops=uint8 (N, 384, 128, 3), features=float (N, 2048)). For a plain network, use crops
    of its input size and its own features.
    """
    from model.conversion.convert import check_parity
    from model.conversion.convert import convert as run

    if out.suffix != ".safetensors":
        raise ModelError(f"--out is {out}; it must end in .safetensors (`export` writes ONNX)")
    require_output_file("--out", out)
    if (trained_on is None) != (terms is None):
        raise ModelError("--trained-on and --terms go together: give both or neither")
    if file.suffix == ".xml":
        if layout is not None or pooling is not None:
            raise ModelError("--layout and --pooling are for checkpoints of MGN code: an OpenVINO IR contains both")
        _convert_ir(file, out, _checkpoint_name(name or file.stem), trained_on, terms, parity)
        return
    conversion = run(file, _checkpoint_name(name or file.stem), layout, pooling)
    metadata = conversion.checkpoint.metadata
    if trained_on and terms:
        data = TrainingData(name=trained_on, terms=terms, identities=metadata.training_data.identities, crops=0)
        metadata = metadata.model_copy(update={"training_data": data})
    if parity:
        result = check_parity(conversion.checkpoint, parity)
        console.print(
            f"against the source network's features: lowest cosine {result.lowest_cosine:.6f}, "
            f"largest difference {result.largest_difference:.1e}",
            soft_wrap=True,
        )
    saved = save_checkpoint(out, conversion.checkpoint.weights, metadata)
    console.print(f"{file} is of {conversion.layout}: {conversion.used} tensors used", soft_wrap=True)
    for reason, count in conversion.dropped.items():
        console.print(f"  {count} dropped, each {reason}", soft_wrap=True)
    for assumption in conversion.assumed:
        console.print(f"  not in the file: {assumption}", soft_wrap=True)
    console.print(f"{out} is {saved.metadata.model_id}", soft_wrap=True)


def _convert_ir(
    file: Path, out: Path, name: str, trained_on: str | None, terms: str | None, parity: Path | None
) -> None:
    from model.conversion.networks import check_network, convert_network
    from model.plain_network import load_network, save_network

    data = TrainingData(name=trained_on, terms=terms, identities=0, crops=0) if trained_on and terms else None
    converted = convert_network(file, name, data)
    if parity:
        cosine = check_network(converted.weights, converted.metadata, parity).lowest_cosine
        console.print(f"against the source network's features: lowest cosine {cosine:.6f}", soft_wrap=True)
    save_network(out, converted.weights, converted.metadata)
    metadata = load_network(out).metadata
    console.print(f"{file}: all {converted.constants} constants used; channels {metadata.channels}", soft_wrap=True)
    console.print(f"{out} is {metadata.model_id}", soft_wrap=True)


def _checkpoint_name(name: str) -> str:
    return (
        "".join(char if char.isalnum() or char in "._-" else "-" for char in name.lower()).lstrip("._-") or "converted"
    )
