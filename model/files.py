"""Durable, atomic writes and hashes of files, for the library and the service."""

import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder to write to; it becomes `path` at the end, durably.

    `path` has the old or the new content, even after a power failure; the old one after an error. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file by `atomic_write`. Raises OSError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk. Raises OSError."""
    if os.name == "nt":  # Windows cannot open folders, and flushes their entries itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable(path: Path | str) -> str:
    """A path or file name with `\\x..` in place of bytes that are not UTF-8, for texts that must be encoded.

    >>> printable("t\\udcfcr.jpg")
    't\\\\xfcr.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def print_undecodable_names() -> None:
    """From now on print what the terminal's encoding lacks, such as bytes of file names, as `\\x..` and `\\u....`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
