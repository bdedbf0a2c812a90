"""A teacher for distillation: another network's features of the training crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.datasets.base import Sample
from model.errors import DataError

_BATCH = 64


@dataclass(frozen=True)
class Teacher:
    """L2-normalised features `(2, N, E)` float32 of N crops: plain, and of the mirror images."""

    features: Tensor

    def select(self, chosen: Tensor, flipped: Tensor) -> Tensor:
        """`(n, E)`: the features of the crops with the numbers `chosen`, mirrored where `flipped`."""
        return self.features[flipped.long(), chosen]


def teacher_from_features(features: NDArray[np.float32]) -> Teacher:
    """The teacher with features `(2, N, E)`, plain and mirrored, not yet normalised."""
    return Teacher(F.normalize(torch.from_numpy(features), dim=2))


def mirrored_embeddings(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], inputs: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """`(2, N, E)`: the embeddings of pictures `(N, height, width, 3)` and of their mirror images."""
    starts = range(0, len(inputs), _BATCH)
    sides = []
    for step in (1, -1):
        batches = (inputs[start : start + _BATCH][:, :, ::step].copy() for start in starts)
        sides.append(np.concatenate([embed(batch) for batch in batches]).reshape(len(inputs), -1))
    return np.stack(sides)


def read_teacher(paths: Sequence[Path], samples: Sequence[Sample]) -> Teacher:
    """Read NPZ files with `names` (file names), `features` `(M, E)` and, if they have them, `features_mirrored`.

    Without `features_mirrored`, a mirrored crop has the features of the plain one. Several files hold the features of
    one teacher for different crops. Raises DataError for another kind of file or a training crop without features.
    """
    read = [_read_file(path) for path in paths]
    if len({features.shape[1] for _, features, _ in read}) > 1:
        raise DataError(f"{' and '.join(map(str, paths))} hold features of different lengths: they are of two teachers")
    names, features, mirrored = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
    position = {Path(str(name)).name: number for number, name in enumerate(names)}
    missing = [sample.path.name for sample in samples if sample.path.name not in position]
    if missing:
        raise DataError(
            f"{' and '.join(map(str, paths))}: no features of {len(missing)} training crops, for instance {missing[0]}"
        )
    rows = np.array([position[sample.path.name] for sample in samples])
    both = np.stack([features[rows], mirrored[rows]]).astype(np.float32)
    if not np.isfinite(both).all():
        raise DataError(f"{' and '.join(map(str, paths))}: features that are not finite numbers")
    return teacher_from_features(both)


def _read_file(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names, features = arrays["names"], arrays["features"]
            mirrored = arrays.get("features_mirrored", features)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is not an NPZ file of a teacher's features: {error}") from error
    except KeyError as error:
        raise DataError(f"{path}: {error.args[0]}; a teacher's file holds names and features") from error
    if not len(names) == len(features) == len(mirrored):
        raise DataError(f"{path} holds {len(names)} names, {len(features)} features and {len(mirrored)} mirrored ones")
    return names, features, mirrored
