"""The pages of `python -m model visualize`: ranked results, and a map of the gallery."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.checkpoint import Checkpoint, CheckpointMetadata
from model.errors import DataError
from model.visualize.gallery_map import SIDE, gallery_map
from model.visualize.pages import camera_words, write_page
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
class Choice:
    """Which and how many queries to show, the number of ranks, and the number of crops on the map (0: no map)."""

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
    choice: Choice,
    network: Checkpoint | None = None,
) -> Path:
    """Write the pages and return the path of the main one. network: the checkpoint for activation maps, None: no maps.

    data: the name of the split. Raises DataError if no query has a right answer, there are too few crops for a map, or
    a file is not a picture.
    """
    scores = ranking.scores()
    chosen = choose_queries(scores, choice.order, choice.queries, choice.seed)
    if not chosen:
        raise DataError(f"no query of {data} has a right answer in the gallery by another camera: nothing can be shown")
    if choice.map_crops:
        _write_map(folder / MAP_FILE, ranking, metadata, data, choice)
    answerable = int((~np.isnan(scores.first)).sum())
    values = {
        "model_id": metadata.model_id,
        "data": data,
        "heading": _HEADINGS[choice.order],
        "answerable": answerable,
        "unanswerable": len(scores.first) - answerable,
        "gallery": len(ranking.gallery.pids),
        "rank1": scores.cmc(1)[0],
        "map_step": float(np.nanmean(scores.step)),
        "shown": build_sheets([ranking.ranked(query, choice.top) for query in chosen], network),
        "branches": BRANCHES if network else (),
        "no_maps": NO_MAPS,
        "map_file": MAP_FILE if choice.map_crops else None,
    }
    write_page(folder / RANKS_FILE, "ranks.html.j2", values)
    return folder / RANKS_FILE


def _write_map(path: Path, ranking: Ranking, metadata: CheckpointMetadata, data: str, choice: Choice) -> None:
    points = gallery_map(ranking.gallery, ranking.split.gallery, choice.map_crops, choice.seed)
    by_person = _colours({point.pid for point in points})
    facts = {
        "points": [
            {"pid": point.pid, "camera": point.camera, "words": camera_words(point.camera), "name": point.name}
            for point in points
        ],
        "byPerson": by_person,
        "byCamera": _colours({point.camera for point in points}),
        "side": SIDE,
    }
    values = {
        "model_id": metadata.model_id,
        "data": data,
        "points": points,
        "persons": len(by_person),
        "by_person": by_person,
        "facts": facts,
        "side": SIDE,
        "sheets_file": RANKS_FILE,
    }
    write_page(path, "map.html.j2", values)


def _colours(numbers: set[int]) -> dict[int, str]:
    """Distinct hues for neighbouring numbers: steps of the golden angle, in two lightnesses."""
    return {
        number: f"hsl({round(137.508 * place) % 360} 62% {(42, 56)[place % 2]}%)"
        for place, number in enumerate(sorted(numbers))
    }
