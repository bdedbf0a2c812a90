"""`python -m bench.places`: any checkpoints on any places in one Markdown table, with their training data.

python -m bench.places --checkpoint A.onnx --checkpoint B.safetensors --data market1501:FOLDER --data manifest:FILE.csv
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from model.checkpoint import load_checkpoint
from model.commands.places import PlaceResult, evaluate_place
from model.commands.splits import choose_part, read_split
from model.datasets import open_data_set
from model.errors import ModelError
from model.evaluate import embed_split
from model.export import export_onnx
from model.loading import Inference, load_any_network, load_for_inference
from model.plain_network import PlainNetwork
from model.provenance import Relation, training_summary

Network = Inference | PlainNetwork
"""A checkpoint, or a network that `convert` wrote from an OpenVINO IR."""


def main() -> None:
    """Evaluate all checkpoints on all places, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", action="append", required=True, type=Path, help="a checkpoint; may be repeated")
    parser.add_argument("--data", action="append", required=True, help="KIND:FOLDER; may be repeated")
    arguments = parser.parse_args()
    try:
        networks = [load_any_network(path) for path in arguments.checkpoint]
        columns = [evaluate_all(networks, data) for data in arguments.data]
    except ModelError as error:
        parser.exit(2, f"error: {error}\n")
    print("\n".join(table(networks, columns)))


def evaluate_all(networks: Sequence[Network], data: str) -> list[PlaceResult]:
    """The results of all networks on the same crops of a data set, if possible of persons unseen in their training.

    Raises ModelError.
    """
    data_set = open_data_set(data)
    part = choose_part(data_set, [network.metadata.training_data for network in networks], None)
    results = []
    for network in networks:
        chosen = read_split(data_set, part, network.metadata.training_data)
        results.append(evaluate_place(chosen, embed_split(chosen.split, network)))
    return results


def table(networks: Sequence[Network], columns: Sequence[Sequence[PlaceResult]]) -> list[str]:
    """The lines of the Markdown table, a row for each network and a column for each place, and of its notes."""
    heads = [f"{column[0].chosen.name} ({column[0].evaluation.metrics.queries:,} queries)" for column in columns]
    lines = [f"| rank-1 / mAP (step), % | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for row, network in enumerate(networks):
        cells = [cell(column[row]) for column in columns]
        lines.append(f"| {network.metadata.model_id} | {' | '.join(cells)} |")
    return [*lines, "", *(f"- {training_summary(network.metadata)}" for network in networks)]


def cell(place: PlaceResult) -> str:
    """Rank-1 and mAP in %, with the place's relation to the training data unless it is unseen."""
    relation = place.chosen.relation
    return figures(place) + ("" if relation is Relation.UNSEEN else f" ({relation})")


def figures(place: PlaceResult) -> str:
    """Rank-1 and mAP in %."""
    metrics = place.evaluation.metrics
    return f"{100 * metrics.rank1:.1f} / {100 * metrics.map_step:.1f}"


def load_as_onnx(checkpoint: Path, exported: Path) -> Inference:
    """A checkpoint exported to ONNX, which evaluates in a fraction of torch's time. Raises CheckpointError."""
    export_onnx(load_checkpoint(checkpoint), exported)
    return load_for_inference(exported)


if __name__ == "__main__":
    main()
