"""The rules of searching: what a query is, what counts as a match, what is kept of a search."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from app.database import Database
from app.embedding.decoding import PictureError
from app.embedding.engine import EngineError
from app.embedding.queue import Priority
from app.errors import InvalidRequest, NotFound, UnknownCamera
from app.gallery.answering import Answering, RunningModel
from app.gallery.crop_store import unpack_parts
from app.gallery.images import ImageStore
from app.gallery.pictures import Picture, record, store_files
from app.gallery.repository import GalleryRepository
from app.gallery.tables import Camera, Crop
from app.index.port import Filter, SearchResult
from app.kit.hashing import sha256_of_all
from app.kit.ids import new_id
from app.kit.leaving import Departure, unless_left
from app.kit.times import from_microseconds, now_microseconds
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
from app.search.sheet import MOST_DRAWN, Sheet, SheetMatch, can_draw, draw_sheet
from app.search.tables import Search

_CAMERA_FILTERS = ("camera_ids", "exclude_camera_ids")
_ROUNDS = 3
"""Of asking the index: each but the first is for what was deleted in the milliseconds since the one before began."""

Consistency = Literal["eventual", "session"]
"""Which crops a search must see: those stored here, or all that anybody has stored before it."""


@dataclass(frozen=True)
class QueryPicture:
    """A picture that somebody asks with."""

    content: bytes
    name: str


@dataclass(frozen=True)
class Question:
    """A search as it is asked: with pictures of one person, or with crops of the gallery.

    part_weights: as `multipliers_of` takes them.
    """

    pictures: Sequence[QueryPicture]
    crop_ids: Sequence[str]
    filters: Filter
    shown_filters: Mapping[str, Any]
    top_k: int
    min_similarity: float | None
    part_weights: Mapping[str, float]
    consistency: Consistency = "eventual"


@dataclass(frozen=True)
class Match:
    """A crop of the gallery with its similarity to the query, whole and by part."""

    rank: int
    similarity: float
    parts: Mapping[str, float]
    crop: Crop


@dataclass(frozen=True)
class Answer:
    """A search and those of its matches that the gallery still has."""

    search: Search
    matches: Sequence[Match]


class SearchService:
    """Finds where else a person was seen."""

    def __init__(self, database: Database, images: ImageStore, answering: Answering) -> None:
        self._database = database
        self._images = images
        self._answering = answering

    async def search(self, question: Question, departure: Departure) -> Answer:
        """Rank the gallery for a question by one model from end to end, and keep question and answer.

        Raises PictureError, EngineError, InvalidRequest, UnknownCamera, QueueFull, QueueClosed, NotReady, or ClientLeft
        where the client leaves before its pictures are embedded.
        """
        await self._answering.check_ready()
        if question.consistency == "session":  # crops that others store now need not be known to a model before
            await self._answering.agree()
        with self._answering.use() as model:
            return await self._search(model, question, departure)

    async def _search(self, model: RunningModel, question: Question, departure: Departure) -> Answer:
        await self._check_cameras(question.filters)
        pictures, embeddings = await self._embed(model, question.pictures, departure)
        embeddings += await self._embeddings_of_crops(model, question.crop_ids)
        query = join_embeddings(embeddings)
        shares = shares_of(query, multipliers_of(question.part_weights))
        if question.consistency == "session":
            await model.index.catch_up()
        found, matches = await self._matches(model, query, shares, question)
        search = Search(
            id=new_id(),
            created_at=now_microseconds(),
            model_id=model.id,
            gallery_size=found.gallery_size,
            compared=found.compared,
            filters=dict(question.shown_filters),
            query_crop_ids=list(question.crop_ids),
            matches=[
                {"crop_id": match.crop.id, "similarity": match.similarity, "parts": dict(match.parts)}
                for match in matches
            ],
        )
        await self._keep(search, pictures)
        return Answer(search, matches)

    async def stored(self, search_id: str) -> Answer:
        """An earlier search; matches that were deleted since are left out. Raises NotFound."""
        async with self._database.read() as session:
            search = await SearchRepository(session).search(search_id)
            if search is None:
                raise NotFound(f"there is no search {search_id}")
            crops = await GalleryRepository(session).crops([match["crop_id"] for match in search.matches])
        matches = [
            Match(rank, match["similarity"], match["parts"], crops[match["crop_id"]])
            for rank, match in enumerate(search.matches, start=1)
            if match["crop_id"] in crops
        ]
        return Answer(search, matches)

    async def sheet(self, search_id: str) -> bytes:
        """The contact sheet of an earlier search, a JPEG. Raises NotFound."""
        answer = await self.stored(search_id)
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            queries = list(await repository.used_images(search_id))
            asked_with = await repository.crops(answer.search.query_crop_ids)
            cameras = {camera.id: camera for camera in await repository.cameras()}
        queries += [asked_with[i].image_sha256 if i in asked_with else "" for i in answer.search.query_crop_ids]
        drawn = [match.crop.image_sha256 for match in answer.matches[:MOST_DRAWN]]
        contents = await self._read_images([*queries, *drawn])
        sheet = Sheet(
            queries=[contents.get(sha256) for sha256 in queries],
            matches=[
                SheetMatch(
                    picture=contents.get(match.crop.image_sha256),
                    rank=match.rank,
                    camera=_label(cameras[match.crop.camera_id]),
                    captured_at=local_time(match.crop, cameras[match.crop.camera_id]),
                    similarity=match.similarity,
                )
                for match in answer.matches
            ],
            title=f"{len(answer.matches)} matches among {answer.search.compared:,} crops",
            subtitle=_subtitle(answer.search),
        )
        return await asyncio.to_thread(draw_sheet, sheet)

    async def _check_cameras(self, filters: Filter) -> None:
        """A filter that names no camera would quietly find nothing, or hide nothing."""
        for name in _CAMERA_FILTERS:
            named = set(getattr(filters, name))
            if not named:
                continue
            async with self._database.read() as session:
                unknown = named - await GalleryRepository(session).known_cameras(named)
            if unknown:
                raise UnknownCamera(f"{name}: there is no camera {', '.join(sorted(unknown))}", name)

    async def _embed(
        self, model: RunningModel, asked: Sequence[QueryPicture], departure: Departure
    ) -> tuple[list[Picture], list[Parts]]:
        contents = [picture.content for picture in asked]
        outcomes = await unless_left(departure, model.embedding.embed(contents, Priority.SEARCH))
        hashes = await sha256_of_all(contents)
        pictures, embeddings = [], []
        for picture, sha256, outcome in zip(asked, hashes, outcomes, strict=True):
            if isinstance(outcome, PictureError):
                raise PictureError(outcome.kind, f"{picture.name}: {outcome}")
            if isinstance(outcome, EngineError):
                raise outcome
            pictures.append(Picture(picture.content, sha256, outcome.facts))
            embeddings.append(outcome.parts)
        return pictures, embeddings

    async def _embeddings_of_crops(self, model: RunningModel, crop_ids: Sequence[str]) -> list[Parts]:
        if not crop_ids:
            return []
        async with self._database.read() as session:
            repository = GalleryRepository(session)
            crops = await repository.crops(crop_ids)
            vectors = await repository.embeddings([crop.key for crop in crops.values()], model.id)
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
        self, model: RunningModel, query: Parts, shares: Shares, question: Question
    ) -> tuple[SearchResult, list[Match]]:
        """What the index found, and the matches among it; an index that still had deleted crops is asked again."""
        rounds = 1
        while True:
            found = await asyncio.to_thread(
                model.index.index.search,
                weighted(query, shares).reshape(-1),
                question.filters,
                question.top_k + len(question.crop_ids),
                question.min_similarity,
            )
            matches, gone = await self._join(model, [hit.key for hit in found.hits], query, shares, question)
            if not gone or len(matches) == question.top_k or rounds == _ROUNDS:
                return found, matches
            await model.index.catch_up()
            rounds += 1

    async def _join(
        self, model: RunningModel, keys: Sequence[int], query: Parts, shares: Shares, question: Question
    ) -> tuple[list[Match], int]:
        """Hits become matches only with their row in the database; the crops asked with are none.

        They are ranked by what the stored embeddings say, as an index may round its own; equal ones by their keys. Also
        says how many hits have no row any more.
        """
        async with self._database.read() as session:
            rows = await GalleryRepository(session).embedded_crops_by_key(keys, model.id)
        kept = [rows[key] for key in keys if key in rows and rows[key][0].id not in question.crop_ids]
        matches = []
        for crop, vector in kept:
            parts = part_similarities(query, unpack_parts(vector))
            matches.append(Match(0, weighted_similarity(parts, shares), parts, crop))
        matches.sort(key=lambda match: (-match.similarity, match.crop.key))
        ranked = [replace(match, rank=rank) for rank, match in enumerate(matches[: question.top_k], start=1)]
        return ranked, len(keys) - len(rows)

    async def _keep(self, search: Search, pictures: Sequence[Picture]) -> None:
        await store_files(self._images, pictures)
        async with self._database.write() as session:
            repository = GalleryRepository(session)
            await record(repository, self._images, pictures)
            repository.use_images(search.id, [picture.sha256 for picture in pictures])
            SearchRepository(session).add(search)

    async def _read_images(self, hashes: Sequence[str]) -> dict[str, bytes]:
        distinct = sorted(set(hashes) - {""})
        contents = await asyncio.gather(*(self._images.read(sha256) for sha256 in distinct))
        return {sha256: content for sha256, content in zip(distinct, contents, strict=True) if content is not None}


def _subtitle(search: Search) -> str:
    weights = ", ".join(f"{part} x{weight:g}" for part, weight in search.filters.get("part_weights", {}).items())
    facts = [f"search {search.id}", search.model_id, "matches are candidates, not identities"]
    return " · ".join([*facts, f"weights: {weights}"] if weights else facts)


def _label(camera: Camera) -> str:
    """What a contact sheet calls a camera: its name, or its id where the sheet's font lacks the name's letters."""
    return camera.name if can_draw(camera.name) else camera.id


def local_time(crop: Crop, camera: Camera) -> datetime:
    """When a crop was captured, in its camera's time zone, or as it was posted where the camera has none."""
    if camera.time_zone is None:
        return from_microseconds(crop.captured_at, crop.utc_offset)
    return from_microseconds(crop.captured_at).astimezone(ZoneInfo(camera.time_zone))
