"""A small typed client of the service's HTTP API."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, ValidationError

from app.client.errors import ClientError, Refused, Unreachable
from app.kit.hosts import is_loopback
from app.settings import is_header_value
from model.files import printable

API_KEY_VARIABLE = "PASSERBY_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_SECONDS = 5.0
_RESPONSE_SECONDS = 300.0  # a full queue of large pictures on a slow CPU takes minutes
_KEEPALIVE_SECONDS = 2.0  # uvicorn closes idle connections after 5 s; this avoids a race with that
_MAX_WAIT_SECONDS = 600.0  # sum of all pauses before retries of one request
_DEFAULT_PAUSE_SECONDS = 1.0
_CROPS_PER_PAGE = 1000

_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True)
class Picture:
    """A picture file's name and bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Upload:
    """A crop to store; `metadata` is its object in the form field `items` of `POST /embed`."""

    picture: Picture
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Filters:
    """Which crops of the gallery; `attributes` is a JSON text as in `GET /crops`. Raises ClientError for empty ones."""

    camera_ids: Sequence[str] = ()
    exclude_camera_ids: Sequence[str] = ()
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    person_id: str | None = None
    track_id: str | None = None
    attributes: str | None = None

    def __post_init__(self) -> None:
        values = [*self.camera_ids, *self.exclude_camera_ids, self.person_id, self.track_id, self.attributes]
        if "" in values:  # as of an unset variable of a shell: the service would take it as no filter
            raise ClientError("a filter is empty: give its option a value, or leave it out")

    def fields(self) -> dict[str, Any]:
        """As form fields or query parameters, without those that are not set."""
        fields = {name: value for name, value in vars(self).items() if value}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}


@dataclass(frozen=True)
class Selection:
    """The crops that a change or a deletion is for: those that pass the filters and, if there are ids, have one."""

    crop_ids: Sequence[str] = ()
    filters: Filters = Filters()

    def fields(self) -> dict[str, Any]:
        """As query parameters, without those that are not set."""
        return self.filters.fields() | ({"crop_ids": list(self.crop_ids)} if self.crop_ids else {})


@dataclass(frozen=True)
class Query:
    """Pictures of one person, or the ids of crops of the gallery that show the person, and filters of the gallery.

    `part_weights` is a JSON text as in `POST /search`.
    """

    pictures: Sequence[Picture] = ()
    crop_ids: Sequence[str] = ()
    top_k: int = 20
    filters: Filters = Filters()
    min_similarity: float | None = None
    part_weights: str | None = None


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    title: str
    detail: str = ""

    def __str__(self) -> str:
        return self.detail or self.title


class EmbeddedItem(BaseModel):
    """The outcome of one uploaded crop."""

    status: Literal["created", "existing", "updated", "failed"]
    differs: list[str] = []
    problem: Problem | None = None


class EmbedAnswer(BaseModel):
    """The outcome of each uploaded crop, in order."""

    items: list[EmbeddedItem]


class Crop(BaseModel):
    """A crop of the gallery, with all fields that the service gives."""

    model_config = ConfigDict(extra="allow")

    id: str
    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None


class CropPage(BaseModel):
    """A page of crops, latest first."""

    items: list[Crop]
    next_cursor: str | None


class Camera(BaseModel):
    """A camera, and how many crops it has."""

    id: str
    name: str
    place: str | None = None
    time_zone: str | None = None
    crops: int = 0


class Changed(BaseModel):
    """How many crops a change or a deletion is for, and how many were, or would be, changed or deleted."""

    matched: int
    changed: int = Field(validation_alias=AliasChoices("changed", "deleted"))


class Match(BaseModel):
    """A crop with its similarity to the query, -1 to 1."""

    rank: int
    similarity: float
    crop: Crop


class SearchAnswer(BaseModel):
    """Ranked matches, best first."""

    search_id: str
    gallery_size: int
    compared: int
    matches: list[Match]


class Model(BaseModel):
    """A model of the service; `architecture` and `runs_on` are only set for the one in use."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    crops: int = 0
    architecture: str | None = None
    runs_on: str | None = None


class UnreadableCrop(BaseModel):
    """A crop that could not be embedded."""

    crop_id: str
    problem: str


class ReindexAnswer(BaseModel):
    """The active model and the progress of the next one. Checkpoints are identified by their SHA-256."""

    model_config = ConfigDict(protected_namespaces=())

    state: Literal["idle", "embedding", "blocked"]
    active_model_id: str | None
    active_checkpoint: str | None
    next_model_id: str | None
    next_checkpoint: str | None
    embedded: int
    total: int
    crops_per_second: float | None
    trouble: str | None
    unreadable: int
    unreadable_crops: list[UnreadableCrop]


class ServiceClient:
    """The service at a URL. Every method raises Unreachable or Refused, each with a message for the user.

    A response of 429 is not an error: the request is retried after the pause that the service asks for.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url.rstrip("/")
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise ClientError(_not_a_url(url)) from error
        if api_key is not None and not is_header_value(api_key):
            raise ClientError(f"{API_KEY_VARIABLE} is no API key: keys are of ASCII letters, digits and signs")
        self.has_key = api_key is not None
        self._http = httpx.AsyncClient(
            headers={"X-API-Key": api_key} if api_key else {},
            timeout=httpx.Timeout(_RESPONSE_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
            # Use proxies of the environment, but not for this machine.
            trust_env=not is_loopback(host),
        )

    @classmethod
    def at(cls, url: str) -> Self:
        """The service at `url`, with the API key of the environment."""
        return cls(url, os.environ.get(API_KEY_VARIABLE) or None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def check_ready(self) -> None:
        """Raise an error unless the service is ready; waits while it says how long it will take."""
        await self._send("GET", "/health/ready")

    async def why_not_ready(self) -> str | None:
        """The reason why the service is not ready now; None if it is."""
        response = await self._exchange("GET", "/health/ready")
        if response.is_success:
            return None
        if response.status_code != 503:
            raise Refused(self._error_message(response), response.status_code)
        return str(self._parse(Problem, response))

    async def queue_length(self) -> int:
        """How many crops wait for the engine."""
        name = "passerby_embedding_queue_length "
        lines = (await self._send("GET", "/metrics")).text.splitlines()
        return int(float(next((line.removeprefix(name) for line in lines if line.startswith(name)), "0")))

    async def models(self) -> list[Model]:
        """The models of the service, the one in use first."""
        return self._parse(RootModel[list[Model]], await self._send("GET", "/models")).root

    async def crops(self, filters: Filters, limit: int) -> CropPage:
        """The latest crops that pass the filters, `limit` at most."""
        items: list[Crop] = []
        cursor: dict[str, str] = {}
        while True:
            size = min(limit - len(items), _CROPS_PER_PAGE)
            response = await self._send("GET", "/crops", params=filters.fields() | cursor | {"limit": size})
            page = self._parse(CropPage, response)
            items += page.items
            if page.next_cursor is None or len(items) >= limit:
                return CropPage(items=items, next_cursor=page.next_cursor)
            cursor = {"cursor": page.next_cursor}

    async def cameras(self) -> list[Camera]:
        """All cameras by id."""
        return self._parse(RootModel[list[Camera]], await self._send("GET", "/cameras")).root

    async def put_camera(self, camera_id: str, name: str, place: str | None, time_zone: str | None) -> Camera:
        """Describe a camera, which is created if there is none."""
        described = {"name": name, "place": place, "time_zone": time_zone}
        response = await self._send("PUT", f"/cameras/{quote(camera_id, safe='')}", json=described)
        return self._parse(Camera, response)

    async def delete_crops(self, selection: Selection, dry_run: bool) -> Changed:
        """Delete crops, or count them alone."""
        return await self._change("DELETE", "/crops", selection.fields(), dry_run)

    async def delete_camera(self, camera_id: str, dry_run: bool) -> Changed:
        """Delete a camera and its crops, or count them alone."""
        return await self._change("DELETE", f"/cameras/{quote(camera_id, safe='')}", {}, dry_run)

    async def label_crops(self, selection: Selection, labels: Mapping[str, Any], dry_run: bool) -> Changed:
        """Change labels of crops, or count them alone. labels: by field, None clears one."""
        return await self._change("PATCH", "/crops", selection.fields(), dry_run, json=dict(labels))

    async def _change(self, method: str, path: str, fields: Mapping[str, Any], dry_run: bool, **body: Any) -> Changed:
        params = {**fields, "dry_run": str(dry_run).lower()}
        return self._parse(Changed, await self._send(method, path, params=params, **body))

    async def embed(self, uploads: Sequence[Upload], update: bool = False) -> list[EmbeddedItem]:
        """Store crops in one request; the outcome of each, in order. update: change the labels of stored ones."""
        items = [dict(upload.metadata) for upload in uploads]
        form = {"items": json.dumps(items, default=datetime.isoformat)}
        response = await self._send(
            "POST",
            "/embed",
            data=form | ({"update": "true"} if update else {}),
            files=_files([upload.picture for upload in uploads]),
        )
        items_out = self._parse(EmbedAnswer, response).items
        if len(items_out) != len(uploads):
            raise ClientError(f"{self.url} reported {len(items_out)} crops of the {len(uploads)} sent")
        return items_out

    async def search(self, query: Query) -> tuple[SearchAnswer, str]:
        """The best matches of the gallery, and the JSON text of the response."""
        form = query.filters.fields() | {
            "top_k": str(query.top_k),
            "crop_ids": list(query.crop_ids),
            "min_similarity": None if query.min_similarity is None else str(query.min_similarity),
            "part_weights": query.part_weights,
        }
        form = {name: value for name, value in form.items() if value}
        response = await self._send("POST", "/search", data=form, files=_files(query.pictures))
        return self._parse(SearchAnswer, response), response.text

    async def sheet(self, search_id: str) -> bytes:
        """The contact sheet of a search, a JPEG."""
        return (await self._send("GET", f"/searches/{search_id}/sheet.jpg")).content

    def sheet_url(self, search_id: str) -> str:
        """Where the contact sheet of a search is."""
        return f"{self.url}/searches/{search_id}/sheet.jpg"

    async def reindex(self) -> ReindexAnswer:
        """The active model, and the progress of the next one."""
        return self._parse(ReindexAnswer, await self._send("GET", "/reindex"))

    async def begin_reindex(self, checkpoint: Path, allow_missing: bool) -> ReindexAnswer:
        """Switch to the model of a checkpoint. Raises ClientError where the file cannot be read."""
        try:
            with checkpoint.open("rb") as file:
                files = {"checkpoint": (printable(checkpoint.name), file)}
                data = {"allow_missing": str(allow_missing)}
                response = await self._send("POST", "/reindex", data=data, files=files)
        except OSError as error:
            raise ClientError(f"cannot read {checkpoint}: {error.strerror}") from error
        return self._parse(ReindexAnswer, response)

    async def begin_reindex_stored(self, model_id: str, allow_missing: bool) -> ReindexAnswer:
        """Switch to a model whose checkpoint the service has."""
        data = {"model_id": model_id, "allow_missing": str(allow_missing)}
        return self._parse(ReindexAnswer, await self._send("POST", "/reindex", data=data))

    async def cancel_reindex(self) -> None:
        """Cancel the switch to the next model."""
        await self._send("DELETE", "/reindex")

    async def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        waited = 0.0
        while True:
            response = await self._exchange(method, path, **body)
            pause = _retry_pause(response)
            if pause is None or waited + pause > _MAX_WAIT_SECONDS:
                break
            await asyncio.sleep(pause)
            waited += pause
        if not response.is_success:
            raise Refused(self._error_message(response), response.status_code)
        return response

    async def _exchange(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            return await self._http.request(method, self.url + path, **body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no Passerby answers at {self.url}; start one with `passerby serve`") from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} gave no answer within {_RESPONSE_SECONDS:.0f} seconds") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ClientError(_not_a_url(self.url)) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {reason}") from error

    def _error_message(self, response: httpx.Response) -> str:
        if response.status_code == 401:
            reason = "refuses the API key in" if self.has_key else "asks for an API key: set"
            return f"{self.url} {reason} {API_KEY_VARIABLE}"
        try:
            problem = str(Problem.model_validate_json(response.content))
        except ValidationError:
            return f"{response.url} answered {response.status_code}; is it a Passerby?"
        return f"{self.url} answered {response.status_code}: {problem}"

    def _parse(self, kind: type[_Answer], response: httpx.Response) -> _Answer:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise ClientError(f"{self.url} does not answer as Passerby does: {where}: {first['msg']}") from error


def _not_a_url(url: str) -> str:
    return f"{url!r} is no URL of a service; write http://HOST:PORT"


def _files(pictures: Sequence[Picture]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (picture.name, picture.content)) for picture in pictures]


def _retry_pause(response: httpx.Response) -> float | None:
    """Seconds until the request may be retried; None where it must not be."""
    retry_after = response.headers.get("Retry-After")
    if response.status_code != 429 and not (response.status_code == 503 and retry_after):
        return None
    try:
        return max(float(retry_after), 0.1)
    except (TypeError, ValueError):  # no header, or a date, which a proxy may send
        return _DEFAULT_PAUSE_SECONDS
