"""`python -m model evaluate`: judge a checkpoint on a data set, or features that any network made."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.checkpoint import TrainingData
from model.commands.common import show
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out
from model.errors import DataError, ModelError
from model.evaluate import evaluate_features, read_features


def evaluate(
    checkpoint: Annotated[Path | None, typer.Option(help="A .safetensors or .onnx checkpoint")] = None,
    data: Annotated[str | None, typer.Option(help="KIND:FOLDER that the checkpoint is judged on")] = None,
    features: Annotated[Path | None, typer.Option(help="An NPZ file with fq, fg, qp, qc, gp, gc")] = None,
    hold_out_identities: Annotated[
        int | None,
        typer.Option("--hold-out", min=1, help="Judge on so many identities held out of the training part"),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
) -> None:
    """Judge a checkpoint on a data set, or features that any network made."""
    if features is not None and checkpoint is None and data is None:
        query, gallery = read_features(features)
    elif features is None and checkpoint is not None and data is not None:
        from model.evaluate import embed_split
        from model.loading import load_for_inference

        loaded = load_for_inference(checkpoint)
        split = _split(data, loaded.metadata.training_data, hold_out_identities)
        query, gallery = embed_split(split, loaded.metadata.input, loaded.embed)
    else:
        raise ModelError("give either --features FILE.npz, or --checkpoint FILE with --data KIND:FOLDER")
    show(evaluate_features(query, gallery, rerank), as_json)


def _split(data: str, trained_on: TrainingData, hold_out_identities: int | None) -> EvaluationSplit:
    """The official test part; or identities held out of the training part, as asked or as the checkpoint says."""
    data_set = open_data_set(data)
    if hold_out_identities is None and data_set.has_test():
        return data_set.test()
    held_out = hold_out_identities or trained_on.held_out_identities
    if not held_out:
        raise DataError(
            f"{data} has no test part, and no identities were held out when the checkpoint was trained; "
            "--hold-out N judges on N identities of the training part"
        )
    if trained_on.name == data_set.name and trained_on.held_out_identities < held_out:
        Console(stderr=True).print(
            "[yellow]note:[/] the checkpoint has seen these identities in training; they say nothing of others"
        )
    _, split = hold_out(data_set.train(), held_out, trained_on.hold_out_seed)
    return split
