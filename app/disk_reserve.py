"""Room on the data folder's disk for deletions, which write before they free anything."""

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from app.kit.provide import provided

_SIZE = 16 * 1024 * 1024


class DiskReserve:
    """A file that takes room as long as there is some, and is given up when a deletion needs it."""

    def __init__(self, database: Path | None, images: Path | None) -> None:
        """database, images: the folders of an SQLite file and of local pictures; all else can be rebuilt."""
        self._folders = [folder for folder in (database, images) if folder is not None]
        self._file = None if database is None else database / "passerby.reserve"

    @property
    def trouble(self) -> str | None:
        """That a folder is gone or its disk full; None as long as there is room."""
        for folder in self._folders:
            if not folder.exists():
                return f"the folder {folder} is gone: put it back"
            free = shutil.disk_usage(folder).free
            if free < _SIZE:
                return f"the disk of {folder} is full: {free // 2**20} MiB are left; make room, or delete crops"
        return None

    def start(self) -> None:
        """Create the folders, and take the room."""
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.keep()

    def keep(self) -> None:
        """Take the room, if there is enough for the service, too."""
        file = self._file
        if file is not None and not file.exists() and shutil.disk_usage(file.parent).free > 2 * _SIZE:
            file.write_bytes(bytes(_SIZE))

    def give_up(self) -> None:
        """Make room, if a disk is full."""
        if self._file is not None and self.trouble is not None:
            self._file.unlink(missing_ok=True)


async def use_reserve(request: Request, reserve: Annotated[DiskReserve, Depends(provided(DiskReserve))]) -> None:
    """A dependency for FastAPI: deletions may use the reserve, which other changes take again."""
    if request.method == "DELETE":
        await asyncio.to_thread(reserve.give_up)
    elif request.method != "GET":
        await asyncio.to_thread(reserve.keep)
