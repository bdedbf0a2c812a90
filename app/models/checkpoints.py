"""The store of checkpoints that services share: files in the image store, each named by its content's hash."""

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from app.places import file_system
from model.errors import CheckpointError
from model.files import atomic_write, file_sha256

_ARRIVING = ".arriving-"
_MAX_UPLOAD_SECONDS = 24 * 3600
"""A partial file that is older is deleted at start."""


class CheckpointLost(CheckpointError):
    """A stored checkpoint is missing or damaged."""


@dataclass(frozen=True)
class ReceivedCheckpoint:
    """A checkpoint on this machine's disk that is not stored yet, and the name that it gets in the store."""

    path: Path
    name: str


class CheckpointStore:
    """Stores checkpoints as `URL/SHA256.onnx` or `.safetensors`; a local folder caches those of a remote URL.

    Blocking work runs in threads.
    """

    def __init__(self, url: str, folder: Path) -> None:
        """url: a path, or a URL that fsspec knows; folder: local, for uploads and cached copies."""
        self._files, self._root = file_system(url)
        self._local = isinstance(self._files, LocalFileSystem)
        self._folder = folder

    @asynccontextmanager
    async def received(self, content: BinaryIO, suffix: str) -> AsyncIterator[ReceivedCheckpoint]:
        """A checkpoint on this machine's disk during the block, in which `keep` can store it. Raises OSError."""
        received = await asyncio.to_thread(self._receive, content, suffix)
        try:
            yield received
        finally:
            await asyncio.to_thread(received.path.unlink, missing_ok=True)

    async def keep(self, received: ReceivedCheckpoint) -> None:
        """Put a checkpoint into the store. Raises OSError, or what the file system raises."""
        await asyncio.to_thread(self._keep, received)

    async def path(self, name: str) -> Path:
        """The local path of a stored checkpoint, which is copied here if necessary. Raises CheckpointLost."""
        return await asyncio.to_thread(self._path, name)

    async def delete(self, name: str) -> None:
        """Delete a stored checkpoint and its local copy, if they exist."""
        await asyncio.to_thread(self._delete, name)

    def clear(self) -> None:
        """Delete old partial files of killed processes; recent ones may belong to a process that shares the folder."""
        for path in (*self._folder.glob(f"{_ARRIVING}*"), *self._folder.glob(".*.tmp")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _MAX_UPLOAD_SECONDS:
                    path.unlink()

    def _receive(self, content: BinaryIO, suffix: str) -> ReceivedCheckpoint:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_ARRIVING}{secrets.token_hex(8)}{suffix}"
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
            return ReceivedCheckpoint(path, f"{file_sha256(path)}{suffix}")
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _keep(self, received: ReceivedCheckpoint) -> None:
        if not self._local:
            self._files.put_file(str(received.path), f"{self._root}/{received.name}")
            return
        folder = Path(self._root)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / received.name) as draft:
            shutil.move(received.path, draft)

    def _path(self, name: str) -> Path:
        path = Path(self._root) / name if self._local else self._folder / name
        if path.exists() and _is_intact(path):
            return path
        if not self._local:
            self._copy(name, path)
            if path.exists() and _is_intact(path):
                return path
        problem = f"{path} is damaged" if path.exists() else f"{self._root}/{name} is gone"
        raise CheckpointLost(f"{problem}: post the checkpoint again with `passerby reindex`")

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")
        (self._folder / name).unlink(missing_ok=True)

    def _copy(self, name: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), atomic_write(path) as draft:
            self._files.get_file(f"{self._root}/{name}", str(draft))


def _is_intact(path: Path) -> bool:
    return file_sha256(path) == path.stem
