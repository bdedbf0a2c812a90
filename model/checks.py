"""Checks before long work: pictures, output files and folders, disk and memory. Each error is one sentence."""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from model.datasets.base import Sample
from model.errors import DataError, ResourceError
from model.figures import size

_MEMINFO = Path("/proc/meminfo")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def require_pictures(samples: Iterable[Sample]) -> None:
    """Check that each picture is a file that is not empty and may be read; none is opened.

    Raises DataError with the first that is not, and their number.
    """
    paths = list(dict.fromkeys(sample.path for sample in samples))
    unusable = [(path, problem) for path in paths if (problem := _problem(path))]
    if unusable:
        path, problem = unusable[0]
        raise DataError(
            f"{len(unusable):,} of {len(paths):,} pictures cannot be used, the first is {path}: {problem}; "
            "correct the data, or leave these pictures out of it"
        )


def _problem(path: Path) -> str | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if not status.st_size:
        return "it is empty"
    return None if os.access(path, os.R_OK) else "you may not read it"


def require_text(name: str) -> None:
    """Check that the name of a data set can be stored as text in a checkpoint. Raises DataError."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode(errors="backslashreplace").decode()
        raise DataError(f"the name of the data, {shown}, is not valid UTF-8: rename its folder or file") from error


def require_output_file(option: str, path: Path) -> None:
    """Check that a file can be written in its folder, which must exist. Raises ResourceError with the option."""
    if path.is_dir():
        raise ResourceError(f"{option} is {path}, which is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise ResourceError(f"{option} is {path}, but there is no folder {path.parent}: create it first")
    _require_writable(option, path, path.parent)


def require_output_folder(option: str, path: Path) -> None:
    """Check that a folder can be written, or created. Raises ResourceError with the option."""
    existing = _nearest_existing(path)
    if not existing.is_dir():
        raise ResourceError(f"{option} is {path}, but {existing} is a file: give a folder")
    _require_writable(option, path, existing)


def require_disk(folder: Path, needed: int, what: str, advice: str) -> None:
    """Check that the disk of a folder, which need not exist yet, has `needed` bytes. Raises ResourceError.

    what: what is written, as the subject of a sentence in the singular. advice: what to do, after "free some space or".
    """
    free = shutil.disk_usage(_nearest_existing(folder)).free
    if free < needed:
        raise ResourceError(
            f"{what} needs about {size(needed)} in {folder}, where {size(free)} are free: free some space or {advice}"
        )


def require_memory(needed: int, what: str, advice: str) -> None:
    """Check that `needed` bytes of memory are available, where the system says how many are. Raises ResourceError.

    what: what needs it, as the subject of a sentence in the singular. advice: what to do.
    """
    available = available_memory()
    if available is not None and available < needed:
        raise ResourceError(
            f"{what} needs about {size(needed)} of memory, and {size(available)} are available: {advice}"
        )


def available_memory() -> int | None:
    """The bytes that Linux can give without swapping, at most a container's limit; None on other systems."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        return min(available, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit, which is called `max`
        return available


def _require_writable(option: str, path: Path, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{option} is {path}, but {folder} cannot be written: choose another place")


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
