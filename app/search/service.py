"""The rules of searching: embed the query, rank candidates by their stored embeddings, store the search."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from app.database import Database
from app.embedding.crop_queue import Priority
from app.embedding.engine import EngineError
from app.errors import InvalidRequest, NotFound
from app.gallery.crop_store import unpack_parts
from app.gallery.embedding_repository import EmbeddingRepository
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository
from app.gallery.service import GalleryService, check_cameras
from app.gallery.tables import Camera, Crop
from app.index.port import IndexResult
from app.kit.disconnect import Disconnect, cancel_on_disconnect
from app.kit.hashing import sha256_of_all
from app.kit.ids import new_id
from app.kit.times import from_microseconds, now_microseconds
from app.models.active import ActiveModel, RunningModel
from app.search.parameters import SearchParameters
from app.search.ranking import (
    Parts,
    Shares,
    join_embeddings,
    multipliers_of,
    part_similarities,
    shares_of,
    weighted,
    weighted_similarity,
)
from app.search.repository import SearchRepository
from app.search.sheet import MAX_MATCHES, Sheet, SheetMatch, can_draw, draw_sheet
from app.search.tables import Search
from model.decoding import PictureError

_MAX_ROUNDS = 3
"""Searches of the index for one request. Another round is needed only if candidates were changed in the last one."""

Consistency = Literal["eventual", "session"]
"""Which crops a search must see: those stored by this service, or all that were committed before it."""


@dataclass(frozen=True)
class QueryPicture:
    """A picture of the query."""

    content: bytes
    name: str


@dataclass(frozen=True)
class SearchRequest:
    """The parameters of a search; the query is pictures of one person or crops of the gallery."""

    pictures: Sequence[QueryPicture]
    crop_ids: Sequence[str]
    filters: SearchParameters
    consistency: Consistency = "eventual"


@dataclass(frozen=True)
class Match:
    """A crop of the gallery with its similarity to the query, whole and by part."""

    rank: int
    similarity: float
    parts: Mapping[str, float]
    crop: Crop


@dataclass(frozen=True)
class SearchResult:
    """A stored search and its matches, without deleted ones."""

    search: Search
    matches: Sequence[Match]


@dataclass(frozen=True)
class ListedSearch:
    """A stored search, and how many matches it has, without deleted ones."""

    search: Search
    matches: int


class SearchService:
    """Searches the gallery for a person."""

    def __init__(
        self, database: Database, images: ImageStore, active_model: ActiveModel, gallery: GalleryService
    ) -> None:
        self._database = database
        self._images = images
        self._gallery = gallery
        self._active_model = active_model
        self._drawing = asyncio.Semaphore(1)
        """One contact sheet at a time, as its pictures may take hundreds of megabytes and a core for seconds."""

    async def search(self, request: SearchRequest, disconnect: Disconnect) -> SearchResult:
        """Rank the gallery with one model from start to end, and store the search.

        Raises PictureError, EngineError, InvalidRequest, UnknownCamera, QueueFull, QueueClosed, NotReady, and
        ClientDisconnected where the client disconnects before its pictures are embedded.
        """
        await self._active_model.check_ready()
        if request.consistency == "session":  # an earlier model may lack crops that other services store now
            await self._active_model.sync()
        with self._active_model.use() as model:
            return await self._search(model, request, disconnect)

    async def _search(self, model: RunningModel, request: SearchRequest, disconnect: Disconnect) -> SearchResult:
        async with self._database.read() as session:
            await check_cameras(GalleryRepository(session), request.filters)
        embeddings = await self._embed(model, request.pictures, disconnect)
        embeddings += await self._embeddings_of_crops(model, request.crop_ids)
        query = join_embeddings(embeddings)
        shares = shares_of(query, multipliers_of(request.filters.part_weights))
        if request.consistency == "session":
            await model.index.catch_up()
        found, matches = await self._matches(model, query, shares, request)
        search = Search(
            id=new_id(),
            created_at=now_microseconds(),
            model_id=model.id,
            gallery_size=found.gallery_size,
            compared=found.compared,
            filters=request.filters.model_dump(mode="json"),
            query_crop_ids=list(request.crop_ids),
            matches=[
                {"crop_id": match.crop.id, "similarity": match.similarity, "parts": dict(match.parts)}
                for match in matches
            ],
        )
        contents = [picture.content for picture in request.pictures]
        hashes = await sha256_of_all(contents)
        async with self._database.write_without_lock() as session:
            await SearchRepository(session).add(search, list(zip(hashes, contents, strict=True)))
        return SearchResult(search, matches)

    async def page(self, before: str | None, limit: int) -> tuple[list[ListedSearch], str | None]:
        """A page of stored searches, latest first, and the id after which the next page begins; None on the last."""
        async with self._database.read() as session:
            searches = await SearchRepository(session).page(before, limit + 1)
            found = {match["crop_id"] for search in searches for match in search.matches if match is not None}
            known = await GalleryRepository(session).known_ids(found)
        listed = [
            ListedSearch(search, sum(match is not None and match["crop_id"] in known for match in search.matches))
            for search in searches[:limit]
        ]
        return listed, listed[-1].search.id if len(searches) > limit else None

    async def delete(self, search_id: str) -> None:
        """Delete a stored search with the pictures of its query. Raises NotFound."""
        async with self._database.write() as session:
            searches = SearchRepository(session)
            if await searches.search(search_id) is None:
                raise NotFound(f"there is no search {search_id}")
            await GalleryRepository(session).remove_image_uses([search_id])
            await searches.delete([search_id])
            await GalleryRepository(session).log_deletion(now_microseconds())
        await self._gallery.delete_orphaned_images()

    async def stored(self, search_id: str) -> SearchResult:
        """An earlier search, without matches that were deleted since. Raises NotFound."""
        async with self._database.read() as session:
            search = await SearchRepository(session).search(search_id)
            if search is None:
                raise NotFound(f"there is no search {search_id}")
            found = [match["crop_id"] for match in search.matches if match is not None]
            crops = await GalleryRepository(session).crops(found)
        matches = [
            Match(rank, match["similarity"], match["parts"], crops[match["crop_id"]])
            for rank, match in enumerate(search.matches, start=1)
            if match is not None and match["crop_id"] in crops
        ]
        return SearchResult(search, matches)

    async def sheet(self, search_id: str) -> bytes:
        """The contact sheet of an earlier search, a JPEG. Raises NotFound."""
        result = await self.stored(search_id)
        async with self._database.read() as session:
            posted = await SearchRepository(session).pictures(search_id)
            repository = GalleryRepository(session)
            queries = list(await repository.used_images(search_id))
            query_crops = await repository.crops(result.search.query_crop_ids)
            cameras = {camera.id: camera for camera in await repository.cameras()}
        queries += [
            query_crops[crop_id].image_sha256 if crop_id in query_crops else ""
            for crop_id in result.search.query_crop_ids
        ]
        drawn = [match.crop.image_sha256 for match in result.matches[:MAX_MATCHES]]
        async with self._drawing:
            contents = await self._read_images([*queries, *drawn])
            sheet = Sheet(
                queries=[*(content or None for content in posted), *(contents.get(sha256) for sha256 in queries)],
                matches=[
                    SheetMatch(
                        picture=contents.get(match.crop.image_sha256),
                        rank=match.rank,
                        camera=_label(cameras[match.crop.camera_id]),
                        captured_at=local_time(match.crop, cameras[match.crop.camera_id]),
                        similarity=match.similarity,
                    )
                    for match in result.matches
                ],
                title=f"{len(result.matches)} matches among {result.search.compared:,} crops",
                subtitle=_subtitle(result.search),
            )
            return await asyncio.to_thread(draw_sheet, sheet)

    async def _embed(
        self, model: RunningModel, query_pictures: Sequence[QueryPicture], disconnect: Disconnect
    ) -> list[Parts]:
        contents = [picture.content for picture in query_pictures]
        outcomes = await cancel_on_disconnect(disconnect, model.embedding.embed(contents, Priority.SEARCH))
        embeddings = []
        for picture, outcome in zip(query_pictures, outcomes, strict=True):
            if isinstance(outcome, PictureError):
                raise PictureError(outcome.kind, f"{picture.name}: {outcome}")
            if isinstance(outcome, EngineError):
                raise outcome
            embeddings.append(outcome.parts)
        return embeddings

    async def _embeddings_of_crops(self, model: RunningModel, crop_ids: Sequence[str]) -> list[Parts]:
        if not crop_ids:
            return []
        async with self._database.read() as session:
            crops = await GalleryRepository(session).crops(crop_ids)
            keys = [crop.key for crop in crops.values()]
            vectors = await EmbeddingRepository(session).embeddings(keys, model.id)
        embedded = {crop_id: vectors[crop.key] for crop_id, crop in crops.items() if crop.key in vectors}
        missing = [crop_id for crop_id in crop_ids if crop_id not in crops]
        if missing:
            raise InvalidRequest(f"crop_ids: the gallery has no crop {', '.join(missing)}", "crop_ids")
        unreadable = [crop_id for crop_id in crop_ids if crop_id not in embedded]
        if unreadable:
            raise InvalidRequest(
                f"crop_ids: {model.id} could not embed {', '.join(unreadable)}; GET /reindex says why", "crop_ids"
            )
        return [unpack_parts(embedded[crop_id]) for crop_id in crop_ids]

    async def _matches(
        self, model: RunningModel, query: Parts, shares: Shares, request: SearchRequest
    ) -> tuple[IndexResult, list[Match]]:
        """The candidates of the index and the matches; retries after an update where the index was behind."""
        filters = request.filters
        rounds = 1
        while True:
            found = await model.index.search(
                weighted(query, shares).reshape(-1), filters.to_index(), filters.top_k + len(request.crop_ids)
            )
            matches, outdated = await self._join(model, found.keys.tolist(), query, shares, request)
            if not outdated or len(matches) == filters.top_k or rounds == _MAX_ROUNDS:
                return found, matches
            await model.index.catch_up()
            rounds += 1

    async def _join(
        self, model: RunningModel, keys: Sequence[int], query: Parts, shares: Shares, request: SearchRequest
    ) -> tuple[list[Match], int]:
        """The matches for candidates, and how many candidates are deleted or no longer pass the filters.

        Only candidates whose database row passes become matches, and crops of the query do not. They are ranked by
        their stored embeddings, as an index may round its own; ties are ranked by key. What is less similar than the
        request asks for is left out.
        """
        async with self._database.read() as session:
            rows = await EmbeddingRepository(session).embedded_crops_by_key(keys, model.id, request.filters.to_index())
        min_similarity = request.filters.min_similarity
        compared = []
        for crop, vector in rows.values():
            parts = part_similarities(query, unpack_parts(vector))
            similarity = weighted_similarity(parts, shares)
            if crop.id not in request.crop_ids and (min_similarity is None or similarity >= min_similarity):
                compared.append((similarity, parts, crop))
        compared.sort(key=lambda row: (-row[0], row[2].key))
        best = compared[: request.filters.top_k]
        return [Match(rank, *row) for rank, row in enumerate(best, start=1)], len(keys) - len(rows)

    async def _read_images(self, hashes: Sequence[str]) -> dict[str, bytes]:
        distinct = sorted(set(hashes) - {""})
        contents = await asyncio.gather(*(self._images.read(sha256) for sha256 in distinct))
        return {sha256: content for sha256, content in zip(distinct, contents, strict=True) if content is not None}


def _subtitle(search: Search) -> str:
    weights = ", ".join(f"{part} x{weight:g}" for part, weight in search.filters.get("part_weights", {}).items())
    facts = [f"search {search.id}", search.model_id, "matches are candidates, not identities"]
    return " · ".join([*facts, f"weights: {weights}"] if weights else facts)


def _label(camera: Camera) -> str:
    """A camera's label on a contact sheet: its name, or its id where the sheet's font lacks letters of the name."""
    return camera.name if can_draw(camera.name) else camera.id


def local_time(crop: Crop, camera: Camera) -> datetime:
    """The capture time in the camera's time zone, or in that of the post where the camera has none."""
    if camera.time_zone is None:
        return from_microseconds(crop.captured_at, crop.utc_offset)
    return from_microseconds(crop.captured_at).astimezone(ZoneInfo(camera.time_zone))
