"""The pages of `python -m model visualize`: ranked results, and a map of the gallery."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.checkpoint import Checkpoint, CheckpointMetadata
from model.errors import DataError
from model.visualize.gallery_map import SIDE, gallery_map
from model.visualize.pages import camera_label, write_page
from model.visualize.ranks import Order, Ranking, choose_queries
from model.visualize.sheets import build_sheets

RANKS_FILE = "index.html"
MAP_FILE = "map.html"

BRANCHES = ("global branch", "part-2 branch", "part-3 branch")

NO_MAPS = "Activation maps need the torch form of the checkpoint: give it as .safetensors to see them."

_HEADINGS = {
    "worst": "The queries with the worst results",
    "best": "The queries with the best results",
    "random": "Queries drawn at random",
}


@dataclass(frozen=True)
class PageOptions:
    """Options of the pages.

    order, queries: which queries, and how many. top: the number of ranks. map_crops: the maximum number of crops on the
    map; 0: no map. seed: of random queries and of the crops on the map.
    """

    order: Order = "worst"
    queries: int = 20
    top: int = 10
    map_crops: int = 1000
    seed: int = 0


def write_folder(
    folder: Path,
    ranking: Ranking,
    metadata: CheckpointMetadata,
    data: str,
    options: PageOptions,
    network: Checkpoint | None = None,
) -> Path:
    """Write the pages and return the path of the main one.

    data: the name of the split. network: the checkpoint for activation maps; None: no activation maps. Raises DataError
    if no query has a right answer, there are too few crops for a map, or a file is not a picture.
    """
    scores = ranking.scores()
    chosen = choose_queries(scores, options.order, options.queries, options.seed)
    if not chosen:
        raise DataError(
            f"no query of {data} has a right answer in the gallery from another camera: nothing can be shown"
        )
    if options.map_crops:
        _write_map(folder / MAP_FILE, ranking, metadata, data, options)
    answerable = int((~np.isnan(scores.first)).sum())
    values = {
        "model_id": metadata.model_id,
        "data": data,
        "heading": _HEADINGS[options.order],
        "answerable": answerable,
        "unanswerable": len(scores.first) - answerable,
        "gallery": len(ranking.gallery.pids),
        "rank1": scores.cmc(1)[0],
        "map_step": scores.means().map_step,
        "shown": build_sheets([ranking.ranked(query, options.top) for query in chosen], network),
        "branches": BRANCHES if network else (),
        "no_maps": NO_MAPS,
        "map_file": MAP_FILE if options.map_crops else None,
    }
    write_page(folder / RANKS_FILE, "ranks.html.j2", values)
    return folder / RANKS_FILE


def _write_map(path: Path, ranking: Ranking, metadata: CheckpointMetadata, data: str, options: PageOptions) -> None:
    points = gallery_map(ranking.gallery, ranking.split.gallery, options.map_crops, options.seed)
    colour_of_person = _colours({point.pid for point in points})
    map_data = {
        "points": [
            {"pid": point.pid, "camera": point.camera, "words": camera_label(point.camera), "name": point.name}
            for point in points
        ],
        "byPerson": colour_of_person,
        "byCamera": _colours({point.camera for point in points}),
        "side": SIDE,
    }
    values = {
        "model_id": metadata.model_id,
        "data": data,
        "points": points,
        "persons": len(colour_of_person),
        "by_person": colour_of_person,
        "map_data": map_data,
        "side": SIDE,
        "sheets_file": RANKS_FILE,
    }
    write_page(path, "map.html.j2", values)


def _colours(numbers: set[int]) -> dict[int, str]:
    """Distinct hues for neighbouring numbers: steps of the golden angle, in two lightnesses."""
    return {
        number: f"hsl({round(137.508 * position) % 360} 62% {(42, 56)[position % 2]}%)"
        for position, number in enumerate(sorted(numbers))
    }
