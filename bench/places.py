"""`python -m bench.places`: any checkpoints on any places in one Markdown table, with their training data.

python -m bench.places --checkpoint A.onnx --checkpoint B.safetensors --data market1501:FOLDER --data manifest:FILE.csv
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from model.commands.places import PlaceResult, evaluate_place
from model.commands.splits import choose_part, read_split
from model.datasets import open_data_set
from model.errors import ModelError
from model.evaluate import embed_split
from model.loading import Inference, load_any_network
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
        columns = [evaluated(networks, data) for data in arguments.data]
    except ModelError as error:
        parser.exit(2, f"error: {error}\n")
    print("\n".join(table(networks, columns)))


def evaluated(networks: Sequence[Network], data: str) -> list[PlaceResult]:
    """Every network on the same crops of a data set: if possible, crops that none of them was trained on.

    Raises ModelError.
    """
    trained_on = [network.metadata.training_data for network in networks]
    data_set = open_data_set(data)
    part = choose_part(data_set, trained_on, None)
    column = []
    for network, own in zip(networks, trained_on, strict=True):
        chosen = read_split(data_set, part, own)
        column.append(evaluate_place(chosen, embed_split(chosen.split, network)))
    return column


def table(networks: Sequence[Network], columns: Sequence[Sequence[PlaceResult]]) -> list[str]:
    """The lines of the Markdown table, a row for each network and a column for each place, and its notes."""
    heads = [f"{column[0].chosen.name} ({column[0].found.metrics.queries:,} queries)" for column in columns]
    lines = [f"| rank-1 / mAP (step), % | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for row, network in enumerate(networks):
        cells = [cell(column[row]) for column in columns]
        lines.append(f"| {network.metadata.model_id} | {' | '.join(cells)} |")
    return [*lines, "", *(f"- {training_summary(network.metadata)}" for network in networks)]


def cell(place: PlaceResult) -> str:
    """Rank-1 and mAP in %, marked unless the place is an unseen one."""
    metrics, relation = place.found.metrics, place.chosen.relation
    mark = "" if relation is Relation.UNSEEN else f" ({relation})"
    return f"{100 * metrics.rank1:.1f} / {100 * metrics.map_step:.1f}{mark}"


if __name__ == "__main__":
    main()
