"""Image files, named by their content's hash, on any file system that fsspec knows; another content is never served."""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog
from fsspec.implementations.local import LocalFileSystem

from app.kit.hashing import sha256_hex
from app.places import file_system
from model.files import write_atomically

_WRITERS = 8
"""Files written in parallel: the threads wait for the disk or the object store, and use little CPU."""

_ABANDONED_SECONDS = 600.0
"""Age of a temporary file that no process can be writing any more."""

_IMAGE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}$")

_log = structlog.get_logger()


class ImageStore:
    """Stores images under `URL/ab/cd/abcd...`. Blocking work runs in threads."""

    def __init__(self, url: str) -> None:
        """url: a path, `s3://bucket/prefix`, or any other URL that fsspec and its installed plugins know."""
        self._files, self._root = file_system(url)
        self._local = isinstance(self._files, LocalFileSystem)
        self._writers = ThreadPoolExecutor(_WRITERS, "images")

    async def check(self) -> None:
        """Write and delete a file. Raises OSError, or what the file system raises."""
        await asyncio.to_thread(self._check)

    async def put(self, images: Mapping[str, bytes]) -> None:
        """Store images by hash; files with that content are left as they are, damaged ones are replaced."""
        await asyncio.to_thread(self._put_all, images)

    async def unsound(self, images: Mapping[str, bytes]) -> list[str]:
        """The hashes of images that have no file, or one with another content."""
        return await asyncio.to_thread(
            lambda: [sha for sha, content in images.items() if self._content(sha) != content]
        )

    async def missing(self, hashes: Iterable[str]) -> list[str]:
        """The images that have no file."""
        return await asyncio.to_thread(lambda: [sha256 for sha256 in hashes if not self._exists(self._path(sha256))])

    async def read(self, sha256: str) -> bytes | None:
        """An image's bytes; None if it has no file, or one with another content, which is logged."""
        content = await asyncio.to_thread(self._content, sha256)
        if content is not None and sha256_hex(content) != sha256:
            _log.error("the file of a picture is damaged; post the picture again", path=self._path(sha256))
            return None
        return content

    async def has_images(self) -> bool:
        """Whether there is any image."""
        return await asyncio.to_thread(self._has_images)

    async def delete(self, hashes: Sequence[str]) -> None:
        """Delete the files of images; those that do not exist are left out."""
        await asyncio.to_thread(lambda: list(self._writers.map(self._delete, hashes)))

    async def delete_abandoned(self) -> None:
        """Delete what processes were writing when they were killed. Object stores keep no such files."""
        if self._local:
            await asyncio.to_thread(self._delete_abandoned)

    def _check(self) -> None:
        path = f"{self._root}/.check-{secrets.token_hex(8)}"
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        else:
            self._files.pipe_file(path, b"")
        self._files.rm_file(path)

    def _put_all(self, images: Mapping[str, bytes]) -> None:
        list(self._writers.map(self._put, images.keys(), images.values()))

    def _put(self, sha256: str, content: bytes) -> None:
        path = self._path(sha256)
        if self._content(sha256) == content:
            return
        if self._local:  # object stores publish only complete files
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), content)
        else:
            self._files.pipe_file(path, content)

    def _content(self, sha256: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(self._path(sha256))
        except FileNotFoundError:
            return None
        return content

    def _delete(self, sha256: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(sha256))

    def _has_images(self) -> bool:
        try:
            folders = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return False
        prefixes = [folder for folder in folders if re.search(r"/[0-9a-f]{2}/?$", folder)]
        return any(_IMAGE.search(path) for prefix in prefixes for path in self._files.find(prefix))

    def _delete_abandoned(self) -> None:
        latest = time.time() - _ABANDONED_SECONDS
        for path in Path(self._root).glob("*/*/.*.tmp"):  # see `atomic_write`
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < latest:
                    path.unlink()

    def _exists(self, path: str) -> bool:
        return Path(path).exists() if self._local else bool(self._files.exists(path))

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"
