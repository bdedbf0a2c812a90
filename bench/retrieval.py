"""Rank-1 and mAP of the service over HTTP, against `python -m model evaluate` on the same checkpoint.

python -m bench.retrieval --checkpoint FILE --data market1501:FOLDER --hold-out 100
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.clients import MAX_TOP_K
from bench.service import service
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, Sample, hold_out
from model.evaluate import embed_split, evaluate
from model.loading import load_for_inference
from model.metrics import Metrics, score_ranking

FILES_A_REQUEST = 32


def main() -> None:
    """Print the figures of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--hold-out", type=int, default=100)
    options = parser.parse_args()
    _, split = hold_out(open_data_set(options.data).train(), options.hold_out)
    offline = evaluate(*embed_split(split, load_for_inference(options.checkpoint))).metrics
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), options.checkpoint) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        over_http = metrics_over_http(client, split)
    table = Table("", "over HTTP", "model evaluate")
    for name, value in over_http.as_dict().items():
        table.add_row(name, f"{value:.4f}", f"{offline.as_dict()[name]:.4f}")
    Console().print(table)


def metrics_over_http(client: httpx.Client, split: EvaluationSplit) -> Metrics:
    """Post a split's gallery, search for each of its queries, and evaluate the answers."""
    columns = {crop_id: number for number, crop_id in enumerate(_post(client, split.gallery))}
    return score_ranking(
        _rows(client, split, columns),
        _labels(split.query, "pid"),
        _labels(split.query, "camera"),
        _labels(split.gallery, "pid"),
        _labels(split.gallery, "camera"),
    ).means()


def _rows(client: httpx.Client, split: EvaluationSplit, columns: dict[str, int]) -> Iterator[NDArray[np.float32]]:
    """The similarities of each query to the gallery, `(1, N)`, a search a camera, as each has 1,000 matches at most."""
    cameras = sorted({sample.camera for sample in split.gallery})
    for query in split.query:
        row = np.full(len(columns), -np.inf, dtype=np.float32)
        for camera in cameras:
            answer = client.post(
                "/search",
                files={"files": (query.path.name, query.path.read_bytes())},
                data={"camera_ids": f"c{camera}", "top_k": str(MAX_TOP_K)},
            )
            for match in answer.raise_for_status().json()["matches"]:
                row[columns[match["crop"]["id"]]] = match["similarity"]
        if np.isneginf(row).any():
            raise RuntimeError(f"the service did not compare {query.path.name} with the whole gallery")
        yield row[None]


def _post(client: httpx.Client, samples: Sequence[Sample]) -> list[str]:
    """Post crops; returns their ids."""
    ids = []
    for start in range(0, len(samples), FILES_A_REQUEST):
        batch = samples[start : start + FILES_A_REQUEST]
        items = [{"camera_id": f"c{sample.camera}", "person_id": str(sample.pid)} for sample in batch]
        answer = client.post(
            "/embed",
            files=[("files", (sample.path.name, sample.path.read_bytes())) for sample in batch],
            data={"captured_at": "2026-01-01T00:00:00Z", "items": json.dumps(items)},
        )
        ids += [item["crop"]["id"] for item in answer.raise_for_status().json()["items"]]
    return ids


def _labels(samples: Sequence[Sample], name: str) -> NDArray[np.int64]:
    return np.array([getattr(sample, name) for sample in samples], dtype=np.int64)


if __name__ == "__main__":
    main()
