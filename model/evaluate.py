"""Evaluation of a checkpoint or of features by re-identification metrics."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM
from model.arrays import read_arrays, require_finite, require_table, whole_numbers
from model.bootstrap import confidence_intervals
from model.camera_pairs import CameraPair, CameraPairs
from model.checkpoint import InputFormat
from model.datasets.base import NO_CAMERA, EvaluationSplit, Sample
from model.errors import CheckpointError, DataError
from model.files import atomic_write
from model.metrics import (
    Metrics,
    QueryScores,
    ScoreTable,
    Similarities,
    cosine_blocks,
    l2_normalised,
    rank_queries,
)
from model.pictures import read_inputs
from model.queries import expand_queries, multi_query
from model.reranking import reranked_blocks
from model.verification import PairCounts, Verification

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""`(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32."""

BATCH_SIZE = 64
"""The number of crops to embed at once."""


class HasInputFormat(Interface):
    """The metadata that an evaluation needs of a network."""

    @property
    def input(self) -> InputFormat: ...


class Network(Interface):
    """A network that embeds crops: a checkpoint loaded for inference, a plain network, or an engine of the service."""

    @property
    def metadata(self) -> HasInputFormat: ...

    def embed(self, crops: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """See Embed."""


@dataclass(frozen=True)
class LabelledFeatures:
    """L2-normalised features `(N, D)` float32 with the person and the camera of each, both `(N,)`."""

    features: NDArray[np.float32]
    pids: NDArray[np.int64]
    cameras: NDArray[np.int64]


@dataclass(frozen=True)
class Protocol:
    """The evaluation protocol. The defaults are the usual single-query protocol.

    rerank: use k-reciprocal re-ranking. expansion: number of nearest crops for query expansion, weighted by
    similarity ^ alpha; 0: none. multi_query: average all crops of a person from a camera into one query. cameras:
    exclude crops of the query's person from the query's camera. bootstrap: number of resamples for confidence
    intervals; 0: no intervals. seed: of the resamples.
    """

    rerank: bool = False
    expansion: int = 0
    alpha: float = 3.0
    multi_query: bool = False
    cameras: bool = True
    bootstrap: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation. intervals: 95 % confidence intervals by metric; notes: caveats for readers."""

    metrics: Metrics
    scores: QueryScores
    verification: Verification
    camera_pairs: tuple[CameraPair, ...]
    intervals: dict[str, tuple[float, float]]
    notes: tuple[str, ...]


def evaluate(query: LabelledFeatures, gallery: LabelledFeatures, protocol: Protocol | None = None) -> Evaluation:
    """Rank the gallery for every query and compute all metrics, in one pass over blocks of similarities.

    protocol: None is the usual protocol.
    """
    protocol = protocol or Protocol()
    if not protocol.cameras:
        query, gallery = (replace(side, cameras=np.full_like(side.cameras, NO_CAMERA)) for side in (query, gallery))
    table, pairs, camera_pairs = ScoreTable(len(query.pids)), PairCounts(), CameraPairs(gallery.cameras)
    blocks = _recorded(_similarities(query, gallery, protocol), pairs)
    ranked_queries = rank_queries(blocks, query.pids, query.cameras, gallery.pids, gallery.cameras)
    for number, ranked in enumerate(ranked_queries):
        table.add(number, ranked.ranks)
        pairs.add_query(ranked.similarities[ranked.right], ranked.similarities[ranked.excluded])
        camera_pairs.add(query.cameras[number], ranked.ranking, ranked.is_right)
    scores = table.scores()
    return Evaluation(
        scores.means(),
        scores,
        pairs.verification(),
        camera_pairs.table(),
        confidence_intervals(scores, protocol.bootstrap, protocol.seed) if protocol.bootstrap else {},
        _notes(query, gallery, scores.means()),
    )


def read_features(path: Path) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Query and gallery of an NPZ file with `fq`, `fg` (features), `qp`, `gp` (pids), `qc`, `gc` (cameras).

    Without `qc` and `gc`, cameras are unknown. Raises DataError.
    """
    arrays = read_arrays(path, ("fq", "fg", "qp", "gp"), ("qc", "gc"), "no NPZ file of features")
    query, gallery = (_labelled(arrays, side, path) for side in ("q", "g"))
    if query.features.shape[1] != gallery.features.shape[1]:
        raise DataError(
            f"{path}: features of the queries have {query.features.shape[1]} numbers, "
            f"those of the gallery {gallery.features.shape[1]}"
        )
    return query, gallery


def write_features(path: Path, query: LabelledFeatures, gallery: LabelledFeatures, split: EvaluationSplit) -> None:
    """Write features in the format of `read_features`, in float16, with the crops' paths as `qf` and `gf`.

    Raises OSError.
    """
    sides = {"q": (query, split.query), "g": (gallery, split.gallery)}
    arrays: dict[str, NDArray[np.generic]] = {}
    for side, (labelled, samples) in sides.items():
        arrays[f"f{side}"] = labelled.features.astype(np.float16)
        arrays[f"{side}p"], arrays[f"{side}c"] = labelled.pids, labelled.cameras
        arrays[f"{side}f"] = np.array([str(sample.path) for sample in samples])
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the keywords for `allow_pickle`


def embed_split(split: EvaluationSplit, network: Network) -> tuple[LabelledFeatures, LabelledFeatures]:
    """The embeddings of a split's query and gallery. Raises DataError for a picture that cannot be read."""
    return embed_samples(split.query, network), embed_samples(split.gallery, network)


def embed_samples(samples: Sequence[Sample], network: Network) -> LabelledFeatures:
    """The embeddings of labelled crops, `(N, 2048)`, or `(N, 256)` of a plain network.

    Raises DataError for a picture that cannot be read, CheckpointError for features that are not finite numbers.
    """
    features = []
    for start in range(0, len(samples), BATCH_SIZE):
        paths = [sample.path for sample in samples[start : start + BATCH_SIZE]]
        features.append(network.embed(read_inputs(paths, network.metadata.input)))
        if not np.isfinite(features[-1]).all():
            raise CheckpointError(
                f"the network gives features that are not finite numbers for crops such as {paths[0]}: its weights "
                "cannot be used"
            )
    return LabelledFeatures(
        np.concatenate(features).reshape(len(samples), -1),
        np.array([sample.pid for sample in samples], dtype=np.int64),
        np.array([sample.camera for sample in samples], dtype=np.int64),
    )


def memory_needed(queries: int, gallery: int, rerank: bool = False, dimensions: int = EMBEDDING_DIM) -> int:
    """An estimate of the bytes that embedding and evaluating take, besides the network.

    The features are in memory twice while they are joined, `2 * 4 * (Q + G) * D`; a block of similarities four times
    while it is counted, `4 * 4 * 256 * G`. Re-ranking takes the features once more, and 2,000 bytes for a crop.
    """
    features = 4 * (queries + gallery) * dimensions
    reranking = features + 2_000 * (queries + gallery) if rerank else 0
    return 2 * features + 4 * 4 * 256 * gallery + reranking


def _similarities(query: LabelledFeatures, gallery: LabelledFeatures, protocol: Protocol) -> Iterable[Similarities]:
    features = query.features
    if protocol.multi_query:
        features = multi_query(features, (query.pids, query.cameras), gallery.features, (gallery.pids, gallery.cameras))
    if protocol.expansion:
        features = expand_queries(features, gallery.features, protocol.expansion, protocol.alpha)
    if protocol.rerank:
        return reranked_blocks(features, gallery.features)
    return cosine_blocks(features, gallery.features)


def _recorded(blocks: Iterable[Similarities], pairs: PairCounts) -> Iterator[Similarities]:
    """The blocks, each added to the pairs as it passes."""
    for block in blocks:
        pairs.add_block(block)
        yield block


def _notes(query: LabelledFeatures, gallery: LabelledFeatures, metrics: Metrics) -> tuple[str, ...]:
    notes = []
    cameras = np.concatenate([query.cameras, gallery.cameras])
    if (cameras == NO_CAMERA).any():
        notes.append(
            "cameras are not known, so crops from the same camera count as right answers: these metrics are higher "
            "than those of the usual protocol and not comparable with them"
        )
    elif len(np.unique(cameras)) == 1:
        notes.append(
            "all crops are from one camera, and the usual protocol excludes crops of the query's person from the "
            "query's camera: --same-camera counts them"
        )
    if metrics.unanswerable:
        notes.append(
            f"{metrics.unanswerable} of {len(query.pids)} queries have no right answer in the gallery and are left out"
        )
    return tuple(notes)


def _labelled(arrays: Mapping[str, NDArray[Any]], side: str, path: Path) -> LabelledFeatures:
    features = arrays[f"f{side}"]
    require_table(path, f"f{side}", features)
    pids = whole_numbers(path, f"{side}p", arrays[f"{side}p"])
    named = arrays.get(f"{side}c")
    cameras = np.full(len(pids), NO_CAMERA) if named is None else whole_numbers(path, f"{side}c", named)
    if not len(features) == len(pids) == len(cameras):
        raise DataError(f"{path}: f{side} has shape {features.shape}, with {len(pids)} pids and {len(cameras)} cameras")
    if not features.size:
        raise DataError(f"{path}: f{side} has shape {features.shape}, so it holds no features")
    require_finite(path, f"f{side}", features)
    return LabelledFeatures(l2_normalised(features.astype(np.float32)), pids, cameras)
