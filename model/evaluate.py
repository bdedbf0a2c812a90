"""Judging features or a checkpoint by the metrics of the field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import InputFormat
from model.datasets.base import EvaluationSplit, Sample
from model.errors import DataError
from model.metrics import Metrics, cosine_blocks, evaluate_ranking
from model.pictures import read_inputs
from model.reranking import rerank_similarities

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""`(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32."""

CROPS_AT_ONCE = 64


@dataclass(frozen=True)
class LabelledFeatures:
    """L2-normalised features `(N, D)` float32 with the person and the camera of each, both `(N,)`."""

    features: NDArray[np.float32]
    pids: NDArray[np.int64]
    cameras: NDArray[np.int64]


def evaluate_features(query: LabelledFeatures, gallery: LabelledFeatures, rerank: bool = False) -> Metrics:
    """Rank the gallery for every query by cosine similarity, or by k-reciprocal re-ranking, and judge the ranks."""
    if rerank:
        similarities = iter([rerank_similarities(query.features, gallery.features)])
    else:
        similarities = cosine_blocks(query.features, gallery.features)
    return evaluate_ranking(similarities, query.pids, query.cameras, gallery.pids, gallery.cameras)


def read_features(path: Path) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Query and gallery of an NPZ file with `fq`, `fg` (features), `qp`, `gp` (pids), `qc`, `gc` (cameras).

    Raises DataError.
    """
    try:
        with np.load(path) as arrays:
            return tuple(  # type: ignore[return-value]
                LabelledFeatures(
                    _normalised(arrays[f"f{side}"]),
                    arrays[f"{side}p"].astype(np.int64),
                    arrays[f"{side}c"].astype(np.int64),
                )
                for side in ("q", "g")
            )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no NPZ file of features: {error}") from error
    except KeyError as error:
        raise DataError(f"{path}: {error.args[0]}; it must hold fq, fg, qp, qc, gp and gc") from error


def embed_split(
    split: EvaluationSplit, input_format: InputFormat, embed: Embed
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """The embeddings of a split's query and gallery."""
    return (
        embed_samples(split.query, input_format, embed),
        embed_samples(split.gallery, input_format, embed),
    )


def embed_samples(samples: Sequence[Sample], input_format: InputFormat, embed: Embed) -> LabelledFeatures:
    """The embeddings of labelled crops as `(N, 2048)` features."""
    features = []
    for start in range(0, len(samples), CROPS_AT_ONCE):
        some = [sample.path for sample in samples[start : start + CROPS_AT_ONCE]]
        features.append(embed(read_inputs(some, input_format)))
    return LabelledFeatures(
        np.concatenate(features).reshape(len(samples), -1),
        np.array([sample.pid for sample in samples], dtype=np.int64),
        np.array([sample.camera for sample in samples], dtype=np.int64),
    )


def _normalised(features: NDArray[np.floating]) -> NDArray[np.float32]:
    features = features.astype(np.float32)
    unit: NDArray[np.float32] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit
