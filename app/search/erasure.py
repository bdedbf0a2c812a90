"""Erases what deletions leave behind, and deletes searches after their time: one loop of the service."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.gallery.attributes import Pair, pairs_of
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository
from app.gallery.service import GalleryService
from app.index.port import Filter
from app.kit.times import now_microseconds
from app.search.repository import SearchRepository
from app.search.tables import Search

GONE = "(not in the gallery)"
"""What stands in a stored filter for a label that no crop has any more."""

_SEARCHES_AT_ONCE = 100
_EXPIRY_SECONDS = 60.0  # between two looks for old searches
_CLEANING_SECONDS = 60.0  # between two passes over all stored searches
_LONGEST_PAUSE_SECONDS = 300.0  # after failures
_DAY_MICROSECONDS = 86_400_000_000
_LABELS = ("person_id", "track_id")

_log = structlog.get_logger()


class Erasure:
    """Deletes old searches; removes deleted crops from stored searches, and from the database's files.

    The second is done within a minute after a deletion, and again with the third after half of `erase_seconds`, when no
    search is left that was running at the time of the deletion. The other half is for the work itself. Several
    processes may do it at once.
    """

    def __init__(
        self,
        database: Database,
        gallery: GalleryService,
        images: ImageStore,
        search_days: float,
        erase_seconds: float,
        poll_seconds: float = 1.0,
    ) -> None:
        """search_days: for which a search is stored. erase_seconds: after which nothing of a deleted crop is left."""
        self._database = database
        self._gallery = gallery
        self._images = images
        self._search_days = search_days
        self._erase_seconds = erase_seconds
        self._poll_seconds = poll_seconds
        self._expire_at = 0.0
        self._cleaned_to = 0
        self._clean_at = self._rewrite_at = 0.0
        self._stopping = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._rewriting: asyncio.Task[bool] | None = None

    async def start(self) -> None:
        """Start the loop."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the loop after the step that it is in; a rewrite of the database is cancelled."""
        self._stopping.set()
        if self._rewriting is not None:
            self._rewriting.cancel()
        if self._loop is not None:
            await self._loop

    async def work(self) -> None:
        """Do what is due. Raises what the database and the image store raise."""
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + _EXPIRY_SECONDS  # where it fails, the rest is tried before it again
            await self._delete_old_searches()
        async with self._database.read() as session:
            deletions = await GalleryRepository(session).deletions()
        if deletions is None:
            return
        last, first_at = deletions
        due = time.monotonic() >= self._rewrite_at and now_microseconds() >= first_at + self._erase_seconds / 2 * 1e6
        if due or (last > self._cleaned_to and time.monotonic() >= self._clean_at):
            if not await self._clean_searches():
                return
            self._cleaned_to, self._clean_at = last, time.monotonic() + _CLEANING_SECONDS
        if not due:
            return
        await self._images.delete_abandoned()
        if not await self._rewrite():
            self._rewrite_at = time.monotonic() + min(_CLEANING_SECONDS, self._erase_seconds / 8)
            return
        async with self._database.write() as session:
            await GalleryRepository(session).remove_deletions(last)
        _log.info("what was deleted has left the database")

    async def _rewrite(self) -> bool:
        """Rewrite the database's files; False where another process does so, or at the stop."""
        if self._stopping.is_set():
            return False
        self._rewriting = asyncio.create_task(self._database.erase())
        await asyncio.wait([self._rewriting])
        return not self._rewriting.cancelled() and self._rewriting.result()

    async def _run(self) -> None:
        pause = self._poll_seconds
        while not self._stopping.is_set():
            try:
                await self.work()
            except Exception as error:
                if pause == self._poll_seconds:
                    _log.error("deleted crops cannot be erased; this is tried again", exc_info=error)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                pause = self._poll_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _delete_old_searches(self) -> None:
        oldest = now_microseconds() - int(self._search_days * _DAY_MICROSECONDS)
        while not self._stopping.is_set():
            async with self._database.write() as session:
                searches = SearchRepository(session)
                ids = await searches.stored_before(oldest, _SEARCHES_AT_ONCE)
                if not ids:
                    break
                await GalleryRepository(session).remove_image_uses(ids)
                await searches.delete(ids)
        await self._gallery.delete_orphaned_images()

    async def _clean_searches(self) -> bool:
        """Remove from all stored searches what is no longer in the gallery; False where the stop ends it."""
        cleaner = _Cleaner()
        before = None
        while not self._stopping.is_set():
            async with self._database.read() as session:
                searches = await SearchRepository(session).page(before, _SEARCHES_AT_ONCE)
                changes = await cleaner.changes(session, searches)
            if not searches:
                return True
            before = searches[-1].id
            if changes:
                async with self._database.write_without_lock() as session:
                    for search_id, values in changes.items():
                        await SearchRepository(session).change(search_id, values)
        return False


class _Cleaner:
    """Finds what stored searches hold of crops that are no longer in the gallery. Remembers the labels looked up."""

    def __init__(self) -> None:
        self._has_any: dict[Filter, bool] = {}

    async def changes(self, session: AsyncSession, searches: Sequence[Search]) -> dict[str, dict[str, Any]]:
        """The new values of the columns that must be changed, by search id."""
        gallery = GalleryRepository(session)
        crop_ids = {match["crop_id"] for search in searches for match in search.matches if match is not None}
        known = await gallery.known_ids(
            crop_ids | {crop_id for search in searches for crop_id in search.query_crop_ids}
        )
        changes: dict[str, dict[str, Any]] = {}
        for search in searches:
            values = {
                "matches": [
                    match if match is not None and match["crop_id"] in known else None for match in search.matches
                ],
                "query_crop_ids": [crop_id if crop_id in known else "" for crop_id in search.query_crop_ids],
                "filters": await self._filters(gallery, search.filters),
            }
            changed = {name: value for name, value in values.items() if value != getattr(search, name)}
            if changed:
                changes[search.id] = changed
        return changes

    async def _filters(self, gallery: GalleryRepository, filters: dict[str, Any]) -> dict[str, Any]:
        cleaned = dict(filters)
        for name in _LABELS:
            label = filters.get(name)
            if label is not None and not await self._exists(gallery, Filter(**{name: label})):
                cleaned[name] = GONE
        if filters.get("attributes"):
            pairs = pairs_of(filters["attributes"])
            known = {pair[0] for pair in pairs if await self._exists(gallery, _having(pair))}
            cleaned["attributes"] = {
                name if name in known else GONE: value if name in known else GONE
                for name, value in filters["attributes"].items()
            }
        return cleaned

    async def _exists(self, gallery: GalleryRepository, which: Filter) -> bool:
        if which not in self._has_any:
            self._has_any[which] = await gallery.has_any(which)
        return self._has_any[which]


def _having(pair: Pair) -> Filter:
    return Filter(attributes=frozenset({pair}))
