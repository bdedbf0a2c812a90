"""A small typed client of the service's HTTP API."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from app.client.errors import ClientError, Refused, Unreachable
from app.settings import is_loopback

API_KEY_VARIABLE = "PASSERBY_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 300.0  # a full queue of large pictures on a slow CPU takes minutes
_KEEPALIVE_SECONDS = 2.0  # uvicorn hangs up after 5 s: no request is to meet a closing connection
_PATIENCE_SECONDS = 600.0  # all waiting for a busy service together, for one request
_DEFAULT_PAUSE_SECONDS = 1.0

_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture file, and the file's name."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Upload:
    """A crop to be stored; `metadata` is its object in the form field `items` of `POST /embed`."""

    picture: Picture
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Query:
    """Pictures of one person, and which crops of the gallery to look at (all of them by default).

    `attributes` and `part_weights` are JSON texts as `POST /search` takes them.
    """

    pictures: Sequence[Picture]
    top_k: int = 20
    camera_ids: Sequence[str] = ()
    exclude_camera_ids: Sequence[str] = ()
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    attributes: str | None = None
    part_weights: str | None = None


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    title: str
    detail: str = ""

    def __str__(self) -> str:
        return self.detail or self.title


class EmbeddedItem(BaseModel):
    """What became of one uploaded crop."""

    status: Literal["created", "existing", "failed"]
    problem: Problem | None = None


class EmbedAnswer(BaseModel):
    """What became of each uploaded crop, in order."""

    items: list[EmbeddedItem]


class Crop(BaseModel):
    """A crop of the gallery."""

    id: str
    camera_id: str
    captured_at: datetime
    track_id: str | None = None
    person_id: str | None = None


class Match(BaseModel):
    """A crop with its similarity to the query, -1 to 1."""

    rank: int
    similarity: float
    crop: Crop


class SearchAnswer(BaseModel):
    """Ranked matches, best first."""

    gallery_size: int
    compared: int
    matches: list[Match]
    sheet_url: str


class Model(BaseModel):
    """A model of the service; `runs_on` is known of the one in use."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    runs_on: str | None = None


class UnreadableCrop(BaseModel):
    """A crop that could not be embedded."""

    crop_id: str
    problem: str


class ReindexAnswer(BaseModel):
    """Which model answers, and how far the one is that is to take over. Checkpoints are told by their SHA-256."""

    model_config = ConfigDict(protected_namespaces=())

    state: Literal["idle", "embedding", "held"]
    answering_model_id: str | None
    answering_checkpoint: str | None
    model_id: str | None
    checkpoint: str | None
    done: int
    total: int
    crops_per_second: float | None
    trouble: str | None
    unreadable: int
    unreadable_crops: list[UnreadableCrop]


class ServiceClient:
    """The service at a URL. Every method raises Unreachable or Refused, each with a sentence for the user.

    An answer of 429 is no error: the request is sent again after the pause that the service asks for.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url.rstrip("/")
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise ClientError(_no_url(url)) from error
        self.has_key = api_key is not None
        self._http = httpx.AsyncClient(
            headers={"X-API-Key": api_key} if api_key else {},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
            # A proxy of the environment stands before other machines, never before this one.
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
        """Return if the service takes requests."""
        await self._send("GET", "/health/ready")

    async def models(self) -> list[Model]:
        """The models of the service, the one in use first."""
        return self._parse(RootModel[list[Model]], await self._send("GET", "/models")).root

    async def embed(self, uploads: Sequence[Upload]) -> list[EmbeddedItem]:
        """Store crops in one request: what became of each, in order."""
        items = [dict(upload.metadata) for upload in uploads]
        text = await self._send(
            "POST",
            "/embed",
            data={"items": json.dumps(items, default=datetime.isoformat)},
            files=_files([upload.picture for upload in uploads]),
        )
        answered = self._parse(EmbedAnswer, text).items
        if len(answered) != len(uploads):
            raise ClientError(f"{self.url} answered for {len(answered)} crops of the {len(uploads)} sent")
        return answered

    async def search(self, query: Query) -> SearchAnswer:
        """The best matches of the gallery."""
        return self._parse(SearchAnswer, await self.search_json(query))

    async def search_json(self, query: Query) -> str:
        """The best matches of the gallery: the JSON text just as the service sends it."""
        form = {
            "top_k": str(query.top_k),
            "camera_ids": list(query.camera_ids),
            "exclude_camera_ids": list(query.exclude_camera_ids),
            "captured_from": query.captured_from and query.captured_from.isoformat(),
            "captured_to": query.captured_to and query.captured_to.isoformat(),
            "attributes": query.attributes,
            "part_weights": query.part_weights,
        }
        form = {name: value for name, value in form.items() if value}
        return await self._send("POST", "/search", data=form, files=_files(query.pictures))

    async def reindex(self) -> ReindexAnswer:
        """Which model answers, and how far the next one is."""
        return self._parse(ReindexAnswer, await self._send("GET", "/reindex"))

    async def begin_reindex(self, checkpoint: Path, lossy: bool) -> ReindexAnswer:
        """Let the model of a checkpoint take over. Raises ClientError where the file cannot be read."""
        try:
            with checkpoint.open("rb") as file:
                files = {"checkpoint": (checkpoint.name, file)}
                text = await self._send("POST", "/reindex", data={"lossy": str(lossy)}, files=files)
        except OSError as error:
            raise ClientError(f"cannot read {checkpoint}: {error.strerror}") from error
        return self._parse(ReindexAnswer, text)

    async def begin_reindex_again(self, model_id: str, lossy: bool) -> ReindexAnswer:
        """Let a model take over whose checkpoint the service has."""
        text = await self._send("POST", "/reindex", data={"model_id": model_id, "lossy": str(lossy)})
        return self._parse(ReindexAnswer, text)

    async def give_up_reindex(self) -> None:
        """Let the model that was to take over not do so."""
        await self._send("DELETE", "/reindex")

    def absolute(self, url: str) -> str:
        """A URL of an answer, which may be relative, in full."""
        return urljoin(f"{self.url}/", url)

    async def _send(self, method: str, path: str, **body: Any) -> str:
        waited = 0.0
        while True:
            response = await self._exchange(method, path, **body)
            pause = _asked_pause(response)
            if pause is None or waited + pause > _PATIENCE_SECONDS:
                break
            await asyncio.sleep(pause)
            waited += pause
        if not response.is_success:
            raise Refused(self._complaint(response), response.status_code)
        return response.text

    async def _exchange(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            return await self._http.request(method, self.url + path, **body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no Passerby answers at {self.url}; start one with `passerby serve`") from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} gave no answer within {_ANSWER_SECONDS:.0f} seconds") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ClientError(_no_url(self.url)) from error
        except httpx.TransportError as error:
            what = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {what}") from error

    def _complaint(self, response: httpx.Response) -> str:
        if response.status_code == 401:
            what = "refuses the API key in" if self.has_key else "asks for an API key: set"
            return f"{self.url} {what} {API_KEY_VARIABLE}"
        try:
            problem = str(Problem.model_validate_json(response.content))
        except ValidationError:
            return f"{response.url} answered {response.status_code}; is it a Passerby?"
        return f"{self.url} answered {response.status_code}: {problem}"

    def _parse(self, kind: type[_Answer], text: str) -> _Answer:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise ClientError(f"{self.url} does not answer as Passerby does: {where}: {first['msg']}") from error


def _no_url(url: str) -> str:
    return f"{url!r} is no URL of a service; write http://HOST:PORT"


def _files(pictures: Sequence[Picture]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (picture.name, picture.content)) for picture in pictures]


def _asked_pause(response: httpx.Response) -> float | None:
    """Seconds after which a busy service wants the request again; None if it does not."""
    asked = response.headers.get("Retry-After")
    if response.status_code != 429 and not (response.status_code == 503 and asked):
        return None
    try:
        return max(float(asked), 0.1)
    except (TypeError, ValueError):  # no header, or a date, which services behind a proxy may send
        return _DEFAULT_PAUSE_SECONDS
