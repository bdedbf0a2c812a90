"""A teacher for distillation: another network's features of the training crops."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.arrays import read_arrays, require_table
from model.datasets.base import Sample
from model.errors import DataError, shortened

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Teacher:
    """L2-normalised features `(2, N, E)` float32: of N crops, and of their mirror images."""

    features: Tensor

    def select(self, chosen: Tensor, flipped: Tensor) -> Tensor:
        """`(n, E)`: the features of the crops with the numbers `chosen`, mirrored where `flipped`."""
        return self.features[flipped.long(), chosen]


def teacher_from_features(features: NDArray[np.float32]) -> Teacher:
    """The teacher with features `(2, N, E)` float32 of any norm: of the crops, and of their mirror images."""
    return Teacher(F.normalize(torch.from_numpy(features), dim=2))


def mirrored_embeddings(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], inputs: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """`(2, N, E)` float32: the embeddings of pictures `(N, height, width, 3)` uint8 RGB and of their mirror images."""
    starts = range(0, len(inputs), _BATCH_SIZE)
    sides = []
    for step in (1, -1):
        batches = (inputs[start : start + _BATCH_SIZE][:, :, ::step].copy() for start in starts)
        sides.append(np.concatenate([embed(batch) for batch in batches]).reshape(len(inputs), -1))
    return np.stack(sides)


def check_file_names(names: Iterable[str], source: str) -> None:
    """Check that no two crops of `source` share a file name, by which a teacher's file identifies crops.

    Raises DataError with `source` and the repeated names.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(
            f"{source}: several crops have the same file name, by which a teacher's file identifies crops: "
            f"{shortened(repeated)}; rename them"
        )


def read_teacher(paths: Sequence[Path], samples: Sequence[Sample]) -> Teacher:
    """Read NPZ files with `names` (file names), `features` `(M, E)` and, if they have them, `features_mirrored`.

    Without `features_mirrored`, a mirrored crop has the features of the plain one. Several files hold the features of
    one teacher for different crops. The features are matched with the samples by file name, without folders. Raises
    DataError for another kind of file, a training crop without features, and two training crops or two of the
    teacher's that share a training crop's file name.
    """
    files = " and ".join(map(str, paths))
    contents = [_read_file(path) for path in paths]
    if len({features.shape[1] for _, features, _ in contents}) > 1:
        raise DataError(f"{files} hold features of different lengths: they are of two teachers")
    names, features, mirrored = (np.concatenate(arrays) for arrays in zip(*contents, strict=True))
    teacher_names = [Path(str(name)).name for name in names]
    crop_names = [sample.path.name for sample in samples]
    training_names = set(crop_names)
    check_file_names((path.name for path in {sample.path for sample in samples}), "the training data")
    check_file_names((name for name in teacher_names if name in training_names), files)
    row_of = {name: row for row, name in enumerate(teacher_names)}
    missing = [name for name in crop_names if name not in row_of]
    if missing:
        raise DataError(f"{files}: no features of {len(missing)} training crops, for instance {missing[0]}")
    rows = np.array([row_of[name] for name in crop_names])
    both = np.stack([features[rows], mirrored[rows]]).astype(np.float32)
    if not np.isfinite(both).all():
        raise DataError(f"{files}: features that are not finite numbers")
    return teacher_from_features(both)


def _read_file(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    arrays = read_arrays(path, ("names", "features"), ("features_mirrored",), "not an NPZ file of a teacher's features")
    names, features = arrays["names"], arrays["features"]
    mirrored = arrays.get("features_mirrored", features)
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: names is of shape {names.shape} and type {names.dtype}; a list of texts is expected")
    for name, array in (("features", features), ("features_mirrored", mirrored)):
        require_table(path, name, array)
    if not (len(names) == len(features) and features.shape == mirrored.shape):
        raise DataError(
            f"{path} holds {len(names)} names, features of shape {features.shape} and mirrored ones of shape "
            f"{mirrored.shape}"
        )
    return names, features, mirrored
