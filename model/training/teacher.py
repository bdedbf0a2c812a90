"""A teacher: the features that a better network gives the training crops."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.datasets.base import Sample
from model.errors import DataError


@dataclass(frozen=True)
class Teacher:
    """L2-normalised features `(2, N, E)` float32 of N crops: as they are, and mirrored."""

    features: Tensor

    def of(self, chosen: Tensor, flipped: Tensor) -> Tensor:
        """`(n, E)`: the features of the crops with the numbers `chosen`, mirrored where `flipped` says so."""
        return self.features[flipped.long(), chosen]


def read_teacher(path: Path, samples: Sequence[Sample]) -> Teacher:
    """Read an NPZ file with `names` (file names), `features` `(M, E)` and, if it has them, `features_mirrored`.

    Without the latter a mirrored crop takes the features of the crop as it is. Raises DataError where the file is
    something else or lacks a training crop.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names, features = arrays["names"], arrays["features"]
            mirrored = arrays.get("features_mirrored", features)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is no NPZ file of a teacher's features: {error}") from error
    except KeyError as error:
        raise DataError(f"{path}: {error.args[0]}; a teacher's file holds names and features") from error
    if not len(names) == len(features) == len(mirrored):
        raise DataError(f"{path} holds {len(names)} names, {len(features)} features and {len(mirrored)} mirrored ones")
    position = {Path(str(name)).name: number for number, name in enumerate(names)}
    missing = [sample.path.name for sample in samples if sample.path.name not in position]
    if missing:
        raise DataError(f"{path} has no features of {len(missing)} training crops, for instance {missing[0]}")
    rows = np.array([position[sample.path.name] for sample in samples])
    both = torch.from_numpy(np.stack([features[rows], mirrored[rows]]).astype(np.float32))
    if not torch.isfinite(both).all():
        raise DataError(f"{path} holds features that are no finite numbers")
    return Teacher(F.normalize(both, dim=2))
