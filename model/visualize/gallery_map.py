"""A 2-D map of a gallery by t-SNE: similar crops are close to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets.base import DISTRACTOR, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures
from model.visualize.thumbnails import jpeg_uri, read_thumbnail

FEWEST_CROPS = 5
"""The minimum number of crops of a map."""

SIDE = 1000
"""The plane's width and height in its own units."""

_PICTURE = (64, 128)
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


def choose_crops(gallery: LabelledFeatures, most: int, seed: int = 0) -> NDArray[np.intp]:
    """The sorted numbers of at most `most` crops: all crops of persons that the seed draws.

    Excludes distractors (pid 0), which have no identity.
    """
    persons = np.unique(gallery.pids[gallery.pids > DISTRACTOR])
    chosen: list[NDArray[np.intp]] = []
    left = most
    for pid in np.random.default_rng(seed).permutation(persons):
        crops = np.flatnonzero(gallery.pids == pid)
        if len(crops) <= left:
            chosen.append(crops)
            left -= len(crops)
    return np.sort(np.concatenate([np.empty(0, np.intp), *chosen]))


def gallery_map(gallery: LabelledFeatures, samples: Sequence[Sample], most: int, seed: int = 0) -> list[MapPoint]:
    """Lay out at most `most` of the gallery's crops. Raises DataError for too few crops or an unreadable picture."""
    chosen = choose_crops(gallery, most, seed)
    if len(chosen) < FEWEST_CROPS:
        raise DataError(f"a map needs {FEWEST_CROPS} crops or more of known persons; there are {len(chosen)}")
    plane = lay_out(gallery.features[chosen], seed)
    return [
        MapPoint(
            round(float(x), 1),
            round(float(y), 1),
            samples[crop].pid,
            samples[crop].camera,
            samples[crop].path.name,
            jpeg_uri(read_thumbnail(samples[crop].path, _PICTURE)),
        )
        for crop, (x, y) in zip(chosen, plane, strict=True)
    ]


def lay_out(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """`(N, D)` -> `(N, 2)` within the plane, by t-SNE (van der Maaten and Hinton, JMLR 2008); deterministic."""
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features).astype(np.float64)
    low, high = plane.min(axis=0), plane.max(axis=0)
    scaled = (plane - low) / np.maximum(high - low, 1e-12)
    return np.asarray(_MARGIN + scaled * (SIDE - 2 * _MARGIN))
