"""A 2-D map of a gallery by t-SNE: similar crops are close to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets.base import DISTRACTOR, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures
from model.visualize.thumbnails import jpeg_uri, read_thumbnail

MIN_CROPS = 5
"""The minimum number of crops of a map."""

SIDE = 1000
"""The plane's width and height in its own units."""

_THUMBNAIL_SIZE = (64, 128)
_PERPLEXITY = 30.0
_MARGIN = 30


@dataclass(frozen=True)
class MapPoint:
    """A crop on the plane, with its picture as a `data:` URI."""

    x: float
    y: float
    pid: int
    camera: int
    name: str
    picture: str


def choose_crops(gallery: LabelledFeatures, max_crops: int, seed: int = 0) -> NDArray[np.intp]:
    """The sorted indices of at most `max_crops` crops: all crops of random persons, without distractors."""
    return _choose_crops(gallery.pids, max_crops, seed)


def why_no_map(samples: Sequence[Sample], max_crops: int, seed: int = 0) -> str | None:
    """Why there can be no map of a gallery; None if there can be one."""
    chosen = len(_choose_crops(np.array([sample.pid for sample in samples], dtype=np.int64), max_crops, seed))
    return _too_few(chosen) if chosen < MIN_CROPS else None


def _too_few(crops: int) -> str:
    return f"a map needs {MIN_CROPS} crops or more of known persons; there are {crops}"


def _choose_crops(pids: NDArray[np.int64], max_crops: int, seed: int) -> NDArray[np.intp]:
    persons = np.unique(pids[pids > DISTRACTOR])
    chosen: list[NDArray[np.intp]] = []
    left = max_crops
    for pid in np.random.default_rng(seed).permutation(persons):
        crops = np.flatnonzero(pids == pid)
        if len(crops) <= left:
            chosen.append(crops)
            left -= len(crops)
    return np.sort(np.concatenate([np.empty(0, np.intp), *chosen]))


def gallery_map(gallery: LabelledFeatures, samples: Sequence[Sample], max_crops: int, seed: int = 0) -> list[MapPoint]:
    """Place up to `max_crops` of the gallery's crops on a plane.

    Raises DataError for too few crops, or a picture that cannot be read.
    """
    chosen = choose_crops(gallery, max_crops, seed)
    if len(chosen) < MIN_CROPS:
        raise DataError(_too_few(len(chosen)))
    plane = project(gallery.features[chosen], seed)
    return [
        MapPoint(
            round(float(x), 1),
            round(float(y), 1),
            samples[crop].pid,
            samples[crop].camera,
            samples[crop].path.name,
            jpeg_uri(read_thumbnail(samples[crop].path, _THUMBNAIL_SIZE)),
        )
        for crop, (x, y) in zip(chosen, plane, strict=True)
    ]


def project(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """`(N, D)` -> points `(N, 2)` on the plane, by t-SNE (van der Maaten and Hinton, JMLR 2008); deterministic."""
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    start = "pca" if np.ptp(features, axis=0).any() else "random"  # equal features have no principal components
    plane = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(features).astype(np.float64)
    low, high = plane.min(axis=0), plane.max(axis=0)
    scaled = (plane - low) / np.maximum(high - low, 1e-12)
    return np.asarray(_MARGIN + scaled * (SIDE - 2 * _MARGIN))
