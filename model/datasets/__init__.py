"""The data sets that models are trained on and judged by; one file each."""

from collections.abc import Callable
from pathlib import Path

from model.datasets.base import DataSet
from model.datasets.market1501 import Market1501
from model.datasets.synthetic import Synthetic
from model.errors import DataError

_KINDS: dict[str, Callable[[Path], DataSet]] = {"market1501": Market1501, "synthetic": Synthetic}


def open_data_set(spec: str) -> DataSet:
    """Open `KIND:FOLDER`, for instance `market1501:/data/Market-1501`. Raises DataError."""
    kind, colon, folder = spec.partition(":")
    if not colon or kind not in _KINDS:
        raise DataError(f"--data is {spec!r}; write KIND:FOLDER with KIND one of {', '.join(_KINDS)}")
    return _KINDS[kind](Path(folder))
