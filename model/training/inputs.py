"""Training pictures, decoded and resized once into a memory-mapped file that later runs reuse."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import InputFormat
from model.decoding import PIXELS_VERSION
from model.errors import DataError, ResourceError
from model.files import atomic_write
from model.pictures import read_inputs

CHUNK_SIZE = 1024
"""The number of pictures to read at once."""


def default_cache() -> Path:
    """The default cache folder: `$XDG_CACHE_HOME/passerby`, by default `~/.cache/passerby`.

    Raises ResourceError for a user without home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "passerby"
    except RuntimeError:
        raise ResourceError("there is no home folder for the cache of pictures: give --cache FOLDER") from None


def cached_inputs(paths: Sequence[Path], input_format: InputFormat, cache: Path) -> NDArray[np.uint8]:
    """The pictures as `(N, height, width, 3)` uint8 RGB, memory-mapped from a file in `cache`.

    The file is written if it is missing. Its name is a hash of the pictures' paths, sizes and modification times, and
    of the input's size and interpolation: changed pictures are read again. Raises DataError with the path of a picture
    that cannot be read.
    """
    path = _file(paths, input_format, cache)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _write(path, paths, input_format)
    try:
        inputs: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: delete it, and it is written again") from error
    return inputs


def missing_bytes(paths: Sequence[Path], input_format: InputFormat, cache: Path) -> int:
    """The bytes that `cached_inputs` will write: `N * height * width * 3`; 0 if its file is there."""
    if _file(paths, input_format, cache).exists():
        return 0
    return len(paths) * input_format.height * input_format.width * 3


def _file(paths: Sequence[Path], input_format: InputFormat, cache: Path) -> Path:
    return cache / f"inputs-{_digest(paths, input_format)}.npy"


def picture_digest(path: Path) -> str:
    """The SHA-256 of a file's path, size, modification time, and the version of its decoding.

    Raises DataError if there is no such file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path} as a picture: {error.strerror}") from error
    key = [PIXELS_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def reserve(path: Path) -> None:
    """Take a file's whole size on the disk. Writing to a memory map of a full disk would kill the process.

    Raises OSError if the disk has too little space; does nothing where the system cannot do it.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write(path: Path, paths: Sequence[Path], input_format: InputFormat) -> None:
    shape = (len(paths), *input_format.size, 3)
    with atomic_write(path) as temporary:
        file = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        reserve(temporary)
        for start in range(0, len(paths), CHUNK_SIZE):
            chunk = paths[start : start + CHUNK_SIZE]
            file[start : start + len(chunk)] = read_inputs(chunk, input_format)
        file.flush()


def _digest(paths: Sequence[Path], input_format: InputFormat) -> str:
    digest = hashlib.sha256(json.dumps([input_format.size, input_format.interpolation]).encode())
    for path in paths:
        digest.update(picture_digest(path).encode())
    return digest.hexdigest()[:20]
