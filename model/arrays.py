"""Reading NPZ files that users give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DataError


def read_arrays(path: Path, needed: Sequence[str], optional: Sequence[str], otherwise: str) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file by name; the optional ones only where the file has them.

    otherwise: what another file is not, for the message. Raises DataError for such a file and for a missing array.
    """
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is {otherwise}: it holds a single array")
            with content as arrays:
                missing = [name for name in needed if name not in arrays]
                if missing:
                    raise DataError(f"{path} has no {missing[0]}: it must hold {', '.join(needed)}")
                return {name: arrays[name] for name in (*needed, *optional) if name in arrays}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} is {otherwise}: {error.strerror or error}") from error
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for damaged files, without a common base
        raise DataError(f"{path} is {otherwise}, or is damaged: {error}") from error


def require_table(path: Path, name: str, array: NDArray[Any]) -> None:
    """Check that an array holds a row of numbers for each crop. Raises DataError."""
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise DataError(
            f"{path}: {name} has shape {array.shape} and type {array.dtype}; a row of numbers for each crop is expected"
        )


def require_finite(path: Path, name: str, array: NDArray[Any]) -> None:
    """Check that all numbers are finite. Raises DataError."""
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} holds numbers that are not finite")


def whole_numbers(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """`(N,)`: a whole number for each crop. Raises DataError."""
    try:
        numbers = array.astype(np.int64)
    except (ValueError, TypeError, OverflowError):
        numbers = np.empty(0, np.int64)
    if array.ndim != 1 or numbers.shape != array.shape or (array.dtype.kind == "f" and (numbers != array).any()):
        raise DataError(
            f"{path}: {name} has shape {array.shape} and type {array.dtype}; a whole number for each crop is expected"
        )
    return numbers
