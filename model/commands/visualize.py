"""`python -m model visualize`: ranked results, activation maps and a 2-D map of the gallery."""

from pathlib import Path
from typing import Annotated

import typer

from model.checks import require_output_folder
from model.commands.common import (
    MAX_SEED,
    AllOption,
    DataOption,
    ThreadsOption,
    console,
    require_memory_for,
    show_notes,
    show_split,
)
from model.commands.splits import check_part_options, choose_split
from model.evaluate import embed_split
from model.visualize.ranks import Order, Ranking


def visualize(
    checkpoint: Annotated[Path, typer.Option(help="A .safetensors or .onnx checkpoint")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder to write the pages into")],
    hold_out_identities: Annotated[
        int | None,
        typer.Option("--hold-out", min=1, help="Show N identities held out of the training part"),
    ] = None,
    everyone: AllOption = False,
    order: Annotated[Order, typer.Option(help="Which queries: worst or best (average precision), or random")] = "worst",
    queries: Annotated[int, typer.Option(min=1, max=500, help="How many queries")] = 20,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=100, help="How many ranks of each query")] = 10,
    map_crops: Annotated[
        int, typer.Option(min=0, max=10_000, help="The maximum number of gallery crops on the map; 0: no map")
    ] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of random queries and of the crops on the map")
    ] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Write pages with ranked results, activation maps, matching parts, and a 2-D map of the gallery.

    The pages contain the pictures and open in any browser, offline.
    """
    from model.checkpoint import load_checkpoint
    from model.loading import inference_of, load_for_inference
    from model.visualize.folder import NO_MAPS, PageOptions, write_folder
    from model.visualize.gallery_map import why_no_map

    check_part_options(everyone, hold_out_identities)
    require_output_folder("--out", out)
    network = None if checkpoint.suffix == ".onnx" else load_checkpoint(checkpoint)
    loaded = load_for_inference(checkpoint) if network is None else inference_of(network)
    chosen = choose_split(data, loaded.metadata.training_data, hold_out_identities, everyone)
    require_memory_for(chosen.split)
    show_split(chosen, loaded.metadata)
    if network is None:
        show_notes([NO_MAPS])
    if map_crops and (reason := why_no_map(chosen.split.gallery, map_crops, seed)):
        show_notes([f"no map is drawn: {reason}"])
        map_crops = 0
    options = PageOptions(order, queries, top_k, map_crops, seed)
    query, gallery = embed_split(chosen.split, loaded)
    ranking = Ranking(chosen.split, query, gallery)
    page = write_folder(out, ranking, loaded.metadata, f"{chosen.name} ({chosen.caveat})", options, network)
    console.print(f"open {page}", soft_wrap=True)
