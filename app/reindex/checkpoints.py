"""Checkpoints that services share: files beside the images, each named by its content's hash."""

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from app.kit.files import sync_folder
from model.errors import CheckpointError

_CHUNK = 1024 * 1024  # bytes
_ARRIVING = ".arriving-"
_LONGEST_SECONDS = 24 * 3600
"""No checkpoint is on its way for longer."""


class CheckpointLost(CheckpointError):
    """A checkpoint that was kept is gone or damaged."""


@dataclass(frozen=True)
class Arrived:
    """A checkpoint on this machine's disk that is not kept yet, and the name that it will have."""

    path: Path
    name: str


class CheckpointStore:
    """Keeps checkpoints under `URL/SHA256.onnx` or `.safetensors`, and copies of those of other machines in a folder.

    Blocking work runs in threads.
    """

    def __init__(self, url: str, folder: Path) -> None:
        """url: any that fsspec and its installed plugins know; folder: on this machine."""
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._files, LocalFileSystem)
        self._folder = folder

    async def receive(self, content: BinaryIO, suffix: str) -> Arrived:
        """Write a checkpoint to the disk, for `keep` or `discard`. Raises OSError."""
        return await asyncio.to_thread(self._receive, content, suffix)

    async def keep(self, arrived: Arrived) -> None:
        """Put a checkpoint where every service finds it. Raises OSError, or what the file system raises."""
        await asyncio.to_thread(self._keep, arrived)

    async def discard(self, arrived: Arrived) -> None:
        """Forget a checkpoint that arrived, be it kept or not."""
        await asyncio.to_thread(arrived.path.unlink, missing_ok=True)

    async def path(self, name: str) -> Path:
        """Where a kept checkpoint lies on this machine, copied there if need be. Raises CheckpointLost."""
        return await asyncio.to_thread(self._path, name)

    async def delete(self, name: str) -> None:
        """Delete a kept checkpoint, if it is there."""
        try:
            await asyncio.to_thread(self._files.rm_file, f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def clear(self) -> None:
        """Delete what a process that was killed was receiving, unless it may be another's that shares the folder."""
        for path in self._folder.glob(f"{_ARRIVING}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _LONGEST_SECONDS:
                    path.unlink()

    def _receive(self, content: BinaryIO, suffix: str) -> Arrived:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_ARRIVING}{secrets.token_hex(8)}{suffix}"
        digest = hashlib.sha256()
        try:
            with path.open("xb") as file:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Arrived(path, f"{digest.hexdigest()}{suffix}")

    def _keep(self, arrived: Arrived) -> None:
        kept = f"{self._root}/{arrived.name}"
        if not self._local:
            self._files.put_file(str(arrived.path), kept)
            return
        folder = Path(self._root)
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / arrived.path.name  # the folder may be on another disk than the one where it arrived
        if beside != arrived.path:
            shutil.copyfile(arrived.path, beside)
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
        beside.replace(kept)
        sync_folder(folder)

    def _path(self, name: str) -> Path:
        path = Path(self._root) / name if self._local else self._folder / name
        if not self._local and not (path.exists() and _is_sound(path)):
            self._copy(name, path)
        if not path.exists():
            raise CheckpointLost(f"{self._root}/{name} is gone: post the checkpoint again with `passerby reindex`")
        if not _is_sound(path):
            raise CheckpointLost(f"{path} is damaged: post the checkpoint again with `passerby reindex`")
        return path

    def _copy(self, name: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{_ARRIVING}{secrets.token_hex(8)}{path.suffix}"
        try:
            self._files.get_file(f"{self._root}/{name}", str(draft))
            draft.replace(path)
        except FileNotFoundError:
            return
        finally:
            draft.unlink(missing_ok=True)


def _is_sound(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.stem
