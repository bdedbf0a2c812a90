"""Training pictures, decoded and resized once into a memory-mapped file that later runs find again."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import InputFormat
from model.errors import DataError
from model.pictures import read_inputs

PICTURES_AT_ONCE = 1024


def default_cache() -> Path:
    """Where caches go on this system: `$XDG_CACHE_HOME/passerby`, by default `~/.cache/passerby`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "passerby"


def cached_inputs(paths: Sequence[Path], input_format: InputFormat, cache: Path) -> NDArray[np.uint8]:
    """The pictures as `(N, height, width, 3)` uint8 RGB, memory-mapped from a file in `cache`, made if need be.

    The file's name follows from the pictures' paths, sizes and times and from the input's size and interpolation, so
    that what has changed is read again. Raises DataError, which names a picture that cannot be read.
    """
    path = cache / f"inputs-{_digest(paths, input_format)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _write(path, paths, input_format)
    inputs: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return inputs


def picture_digest(path: Path) -> str:
    """What a picture's file is known by: its path, size and time. Raises DataError where there is none."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path} as a picture: {error.strerror}") from error
    return hashlib.sha256(json.dumps([str(path.resolve()), facts.st_size, facts.st_mtime_ns]).encode()).hexdigest()


def _write(path: Path, paths: Sequence[Path], input_format: InputFormat) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        file = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(len(paths), *input_format.size, 3)
        )
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            some = paths[start : start + PICTURES_AT_ONCE]
            file[start : start + len(some)] = read_inputs(some, input_format)
        file.flush()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(paths: Sequence[Path], input_format: InputFormat) -> str:
    digest = hashlib.sha256(json.dumps([input_format.size, input_format.interpolation]).encode())
    for path in paths:
        digest.update(picture_digest(path).encode())
    return digest.hexdigest()[:20]
