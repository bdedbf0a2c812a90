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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "reserve"

    @property
    def trouble(self) -> str | None:
        """That the disk is full; None as long as it is not."""
        free = shutil.disk_usage(self._folder).free
        if free >= _SIZE:
            return None
        return f"the disk of {self._folder} is full: {free // 2**20} MiB are left; make room, or delete crops"

    def keep(self) -> None:
        """Take the room, if there is enough for the service, too."""
        if not self._file.exists() and shutil.disk_usage(self._folder).free > 2 * _SIZE:
            self._file.write_bytes(bytes(_SIZE))

    def give_up(self) -> None:
        """Make room, if the disk is full."""
        if self.trouble is not None:
            self._file.unlink(missing_ok=True)


async def use_reserve(request: Request, reserve: Annotated[DiskReserve, Depends(provided(DiskReserve))]) -> None:
    """A dependency for FastAPI: deletions may use the reserve, which other changes take again."""
    if request.method == "DELETE":
        await asyncio.to_thread(reserve.give_up)
    elif request.method != "GET":
        await asyncio.to_thread(reserve.keep)
