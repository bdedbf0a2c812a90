"""Data sets for training and evaluation, one file each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from model.datasets.base import DataSet
from model.datasets.cuhk03 import cuhk03
from model.datasets.dukemtmc import dukemtmc
from model.datasets.folders import Folders
from model.datasets.joined import Joined
from model.datasets.manifest import Manifest
from model.datasets.market1501 import market1501
from model.datasets.msmt17 import MSMT17
from model.datasets.synthetic import Synthetic
from model.errors import DataError

_KINDS: dict[str, Callable[[Path], DataSet]] = {
    "market1501": market1501,
    "dukemtmc": dukemtmc,
    "cuhk03-labeled": lambda root: cuhk03(root, "labeled"),
    "cuhk03-detected": lambda root: cuhk03(root, "detected"),
    "msmt17": MSMT17,
    "folder": Folders,
    "manifest": Manifest,
    "synthetic": Synthetic,
}


def open_data_set(spec: str) -> DataSet:
    """Open `KIND:PATH`, for instance `market1501:/data/Market-1501` or `manifest:crops.csv`. Raises DataError."""
    kind, colon, path = spec.partition(":")
    if not colon or kind not in _KINDS:
        raise DataError(
            f"--data is {spec!r}; write KIND:FOLDER, or manifest:FILE.csv, with KIND one of {', '.join(_KINDS)}"
        )
    return _KINDS[kind](Path(path).expanduser())


def open_data_sets(specs: Sequence[str]) -> DataSet:
    """Open one data set, or several to train on together. Raises DataError."""
    data_sets = [open_data_set(spec) for spec in specs]
    return data_sets[0] if len(data_sets) == 1 else Joined(data_sets)
