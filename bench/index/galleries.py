"""Any number of synthetic embeddings with the geometry of real ones: persons, offsets of cameras, and distractors.

`python -m bench.index.galleries` compares them with the real embeddings that they are fitted to: the similarities of
crops, and the recall of the same FAISS index on both.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.forms import MARKET
from bench.index.gallery import CHUNK_ROWS, EMBEDDINGS, QUERIES, Gallery, mapped, nearest_rows
from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS
from model.checkpoint import BUNDLED
from model.datasets import open_data_set
from model.evaluate import LabelledFeatures, embed_samples
from model.loading import load_for_inference

Embeddings = NDArray[np.float32]

KEPT_VARIANCE = 0.995
"""The share of the variance that is kept, in few of the directions."""

QUERY_COUNT = 1000
TRUE_COUNT = 100
"""The length of the ground truth of each query."""

CAMERAS = 6
SINGLE_CROP_SHARE = 0.6
"""Share of the persons with one crop. They are the distractors, about one crop in fifteen."""

LOG_CROPS_MEAN, LOG_CROPS_DEVIATION = 2.6, 0.9
"""Of the logarithm of the other persons' numbers of crops: median 13, 99th percentile 100."""

_MIN_LENGTH = 1e-6


@dataclass(frozen=True)
class Spread:
    """A distribution around zero: normal draws, each scaled by a log-normal size, as some crops are outliers.

    directions: `(K, 2048)`, each as long as its standard deviation. size_deviation: standard deviation of the size's
    logarithm.
    """

    directions: Embeddings
    size_deviation: float

    @classmethod
    def of(cls, deviations: Embeddings) -> "Spread":
        """Fit to deviations `(N, 2048)` from zero, without those that are zero, of groups of one crop."""
        lengths = np.linalg.norm(deviations, axis=1)
        deviations, lengths = deviations[lengths > _MIN_LENGTH], lengths[lengths > _MIN_LENGTH]
        variance = deviations.T @ deviations / len(deviations)
        values, vectors = np.linalg.eigh(variance.astype(np.float64))
        values = np.maximum(values[::-1], 0)
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), KEPT_VARIANCE)) + 1
        directions = (vectors[:, ::-1][:, :kept] * np.sqrt(values[:kept])).T
        normal = (values**2).sum() / values.sum() ** 2 / 2  # variance of the logarithm of a normal draw's length
        size_deviation = math.sqrt(max(0.0, float(np.log(lengths).var() - normal)))
        return cls(np.ascontiguousarray(directions, dtype=np.float32), size_deviation)

    def draw(self, count: int, rng: np.random.Generator) -> Embeddings:
        """Draw `(count, 2048)`; the mean of the squared sizes is 1."""
        drawn: Embeddings = rng.standard_normal((count, len(self.directions)), dtype=np.float32) @ self.directions
        drawn *= rng.lognormal(-(self.size_deviation**2), self.size_deviation, (count, 1)).astype(np.float32)
        return drawn


@dataclass(frozen=True)
class Geometry:
    """A hierarchical distribution: persons around a mean, a person's camera means around it, crops around those.

    part_lengths: `(8,)`, the mean length of each part.
    """

    part_lengths: Embeddings
    mean: Embeddings
    persons: Spread
    cameras: Spread
    crops: Spread

    @classmethod
    def of(cls, real: LabelledFeatures) -> "Geometry":
        """Fit to the embeddings of labelled crops."""
        persons, person = np.unique(real.pids, return_inverse=True)
        pairs, pair = np.unique(np.stack([real.pids, real.cameras]), axis=1, return_inverse=True)
        pair = pair.reshape(-1)
        of_person = _means(real.features, person)
        of_pair = _means(real.features, pair)
        person_of_pair = np.searchsorted(persons, pairs[0])
        mean = of_person.mean(axis=0)
        return cls(
            np.linalg.norm(_by_part(real.features), axis=2).mean(axis=0),
            mean,
            Spread.of(of_person - mean),
            Spread.of(of_pair - of_person[person_of_pair]),
            Spread.of(real.features - of_pair[pair]),
        )

    def draw_like(self, person: NDArray[np.int64], camera: NDArray[np.int64], seed: int) -> Embeddings:
        """Embeddings `(N, 2048)` of crops of these persons, numbered from 0, by these cameras."""
        rng = np.random.default_rng(seed)
        _, pair = np.unique(np.stack([person, camera]), axis=1, return_inverse=True)
        pair = pair.reshape(-1)
        centres = self.mean + self.persons.draw(int(person.max()) + 1, rng)
        shifts = self.cameras.draw(int(pair.max()) + 1, rng)
        return _scaled(centres[person] + shifts[pair] + self.crops.draw(len(person), rng), self.part_lengths)


def real_embeddings() -> LabelledFeatures:
    """The bundled model's embeddings of Market-1501's training crops."""
    network = load_for_inference(BUNDLED)
    samples = open_data_set(f"market1501:{MARKET}").train()
    return embed_samples(samples, network)


def gallery_of(folder: Path, crops: int, seed: int = 0) -> Gallery:
    """A gallery of real crops, filled up with synthetic ones; reuses one in the folder."""
    folder = folder / f"{crops}-{seed}"
    if not (folder / QUERIES).exists():
        folder.mkdir(parents=True, exist_ok=True)
        real = _real_embeddings_in(folder.parent)
        order = np.random.default_rng(seed).permutation(len(real.pids))
        _write(folder / EMBEDDINGS, real, order[QUERY_COUNT:], crops, seed)
        queries = real.features[order[:QUERY_COUNT]]
        true = nearest_rows(mapped(folder / EMBEDDINGS, crops), queries, TRUE_COUNT)
        np.savez(folder / QUERIES, queries=queries, true=true, crops=crops)
    return Gallery.open(folder)


def _real_embeddings_in(folder: Path) -> LabelledFeatures:
    """The real embeddings, cached in a folder."""
    path = folder / "real.npz"
    if not path.exists():
        real = real_embeddings()
        np.savez(path, features=real.features, pids=real.pids, cameras=real.cameras)
    with np.load(path) as found:
        return LabelledFeatures(found["features"], found["pids"], found["cameras"])


def _write(path: Path, real: LabelledFeatures, kept: NDArray[np.int64], crops: int, seed: int) -> None:
    """Write real and synthetic embeddings in random order."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.of(real)
    order = rng.permutation(crops)
    kept = kept[:crops]
    embeddings = np.memmap(path, np.float16, "w+", shape=(crops, EMBEDDING_DIM))
    embeddings[order[: len(kept)]] = real.features[kept]
    for start in range(len(kept), crops, CHUNK_ROWS):
        rows = np.sort(order[start : start + CHUNK_ROWS])
        person = np.repeat(np.arange(len(rows)), _crops_of_persons(len(rows), rng))[: len(rows)]
        cameras = rng.integers(1, CAMERAS + 1, len(rows))  # number of cameras that see each person
        camera = rng.integers(0, CAMERAS, len(rows)) % cameras[person]
        drawn = geometry.draw_like(person, camera, seed=seed + start)
        embeddings[rows] = drawn[rng.permutation(len(rows))]
    embeddings.flush()


def _crops_of_persons(persons: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The number of crops of each person: one for most, very many for a few."""
    several = np.maximum(2, rng.lognormal(LOG_CROPS_MEAN, LOG_CROPS_DEVIATION, persons)).astype(np.int64)
    return np.where(rng.random(persons) < SINGLE_CROP_SHARE, 1, several)


def main() -> None:
    """Compare real embeddings with synthetic ones of the same persons and cameras."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    real = real_embeddings()
    geometry = Geometry.of(real)
    _, person = np.unique(real.pids, return_inverse=True)
    drawn = LabelledFeatures(geometry.draw_like(person, real.cameras, seed), real.pids, real.cameras)
    table = Table("", "real", "drawn")
    for name, real_value, drawn_value in zip(_MEASURES, _measured(real, seed), _measured(drawn, seed), strict=True):
        table.add_row(name, f"{real_value:.3f}", f"{drawn_value:.3f}")
    for name, spread in (("persons", geometry.persons), ("cameras", geometry.cameras), ("crops", geometry.crops)):
        table.add_row(
            f"{name}: directions, deviation of log size", str(len(spread.directions)), f"{spread.size_deviation:.2f}"
        )
    Console().print(table)


_INDEXES = (("IVF128,RaBitQ", 4), ("IVF128,RaBitQ", 16), ("PCA256,IVF128,SQ8", 4), ("PCA256,IVF128,SQ8", 16))
_PERCENTILES = (5, 50, 95)
_MEASURES = (
    *(f"similarity of crops of one person by two cameras, percentile {percentile}" for percentile in _PERCENTILES),
    *(f"similarity of crops of two persons, percentile {percentile}" for percentile in _PERCENTILES),
    "similarity of the tenth nearest, median",
    *(f"recall@10 of {name}, nprobe {nprobe}" for name, nprobe in _INDEXES),
)


def _measured(sample: LabelledFeatures, seed: int) -> list[float]:
    """The measures, with 500 of the crops as queries to the others."""
    order = np.random.default_rng(seed).permutation(len(sample.pids))
    queries, rest = order[:500], order[500:]
    query, gallery = sample.features[queries], np.ascontiguousarray(sample.features[rest])
    similarities = query @ gallery.T
    same = sample.pids[queries][:, None] == sample.pids[rest][None]
    across = same & (sample.cameras[queries][:, None] != sample.cameras[rest][None])
    true = np.argpartition(-similarities, 10, axis=1)[:, :10]
    tenth = np.median(np.take_along_axis(similarities, true, axis=1).min(axis=1))
    recalls = [_recall(name, nprobe, query, gallery, true) for name, nprobe in _INDEXES]
    return [
        *np.percentile(similarities[across], _PERCENTILES).tolist(),
        *np.percentile(similarities[~same], _PERCENTILES).tolist(),
        float(tenth),
        *recalls,
    ]


def _recall(name: str, nprobe: int, query: Embeddings, gallery: Embeddings, true: NDArray[np.int64]) -> float:
    """The share of the true ten nearest that are among an index's 100 best candidates."""
    index = faiss.index_factory(EMBEDDING_DIM, name, faiss.METRIC_INNER_PRODUCT)
    index.train(gallery)
    index.add(gallery)
    faiss.extract_index_ivf(index).nprobe = nprobe
    _, candidates = index.search(query, 100)
    return sum(len(np.intersect1d(*rows)) for rows in zip(candidates, true, strict=True)) / true.size


def _means(features: Embeddings, group: NDArray[np.int64]) -> Embeddings:
    """The mean of the rows of each group, indexed by group number."""
    sums = np.zeros((int(group.max()) + 1, features.shape[1]), np.float32)
    np.add.at(sums, group, features)
    sums /= np.bincount(group)[:, None]
    return sums


def _scaled(embeddings: Embeddings, part_lengths: Embeddings) -> Embeddings:
    """Scale each part to its length, in place."""
    parts = _by_part(embeddings)
    parts *= part_lengths[:, np.newaxis] / np.linalg.norm(parts, axis=2, keepdims=True)
    return embeddings


def _by_part(embeddings: Embeddings) -> Embeddings:
    """`(N, 2048)` as `(N, 8, 256)`."""
    return embeddings.reshape(-1, len(PARTS), PART_DIM)


if __name__ == "__main__":
    main()
