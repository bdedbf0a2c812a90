"""Requests to a service over HTTP: retries, and errors as exceptions."""

import asyncio
import os
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from app.kit.hosts import is_loopback
from app.kit.keys import is_header_value
from app.problem import Problem
from passerby.errors import ServiceError, UnexpectedAnswer, Unreachable, refused_as

URL_VARIABLE = "PASSERBY_URL"
API_KEY_VARIABLE = "PASSERBY_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_SECONDS = 5.0
_RESPONSE_SECONDS = 300.0  # a full queue of large pictures on a slow CPU takes minutes
_KEEPALIVE_SECONDS = 2.0  # uvicorn closes idle connections after 5 s; this avoids a race with that
_MAX_WAIT_SECONDS = 600.0  # sum of all pauses before retries of one request
_DEFAULT_PAUSE_SECONDS = 1.0

_Answer = TypeVar("_Answer", bound=BaseModel)


class Connection:
    """Sends requests to the service at a URL. Every method raises ServiceError, with a message for the user."""

    def __init__(self, url: str | None, api_key: str | None) -> None:
        """url, api_key: by default those of the environment."""
        url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self.url = url.rstrip("/")
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise ServiceError(_not_a_url(url)) from error
        key = os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key
        if key and not is_header_value(key):
            raise ServiceError(f"{API_KEY_VARIABLE} is no API key: keys are of ASCII letters, digits and signs")
        self._has_key = bool(key)
        self._http = httpx.AsyncClient(
            headers={"X-API-Key": key} if key else {},
            timeout=httpx.Timeout(_RESPONSE_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
            # Use proxies of the environment, but not for this machine.
            trust_env=not is_loopback(host),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def absolute(self, link: str) -> str:
        """A link of an answer as a whole URL."""
        return urljoin(f"{self.url}/", link)

    async def send(self, method: str, path: str, *names: str, **request: Any) -> httpx.Response:
        """The answer to a request, which is repeated while the service is busy.

        path: with `{}` in place of each of `names`; request: as httpx takes it.
        """
        waited = 0.0
        while True:
            response = await self._exchange(method, path, *names, **request)
            pause = _retry_pause(response)
            if pause is None or waited + pause > _MAX_WAIT_SECONDS:
                return self._accepted(response)
            await asyncio.sleep(pause)
            waited += pause

    async def send_once(self, method: str, path: str, *names: str, **request: Any) -> httpx.Response:
        """The answer to a request, which is not repeated."""
        return self._accepted(await self._exchange(method, path, *names, **request))

    def parse(self, kind: type[_Answer], response: httpx.Response) -> _Answer:
        """An answer as its schema; fields that the schema does not have are kept."""
        try:
            return kind.model_validate_json(response.content, extra="allow")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise UnexpectedAnswer(
                f"{self.url} does not answer as this version of Passerby does: {where}: {first['msg']}"
            ) from error

    async def _exchange(self, method: str, path: str, *names: str, **request: Any) -> httpx.Response:
        url = self.url + path.format(*(quote(name, safe="") for name in names))
        try:
            return await self._http.request(method, url, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no Passerby answers at {self.url}; start one with `passerby serve`") from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} gave no answer within {_RESPONSE_SECONDS:.0f} seconds") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ServiceError(_not_a_url(self.url)) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {reason}") from error

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        status = response.status_code
        kind = refused_as(status)
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            message = f"{response.url} answered {status}; is it a Passerby?"
            raise kind(message, status, response.reason_phrase, message) from None
        raise kind(self._message(problem, status), status, problem.title, problem.detail, problem)

    def _message(self, problem: Problem, status: int) -> str:
        if status == httpx.codes.UNAUTHORIZED:
            reason = "refuses the API key in" if self._has_key else "asks for an API key: set"
            return f"{self.url} {reason} {API_KEY_VARIABLE}"
        return f"{self.url} answered {status}: {problem.detail or problem.title}"


def _not_a_url(url: str) -> str:
    return f"{url!r} is no URL of a service; write http://HOST:PORT"


def _retry_pause(response: httpx.Response) -> float | None:
    """Seconds until the request may be repeated; None where it must not be."""
    retry_after = response.headers.get("Retry-After")
    if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not (
        response.status_code == httpx.codes.SERVICE_UNAVAILABLE and retry_after
    ):
        return None
    try:
        return max(float(retry_after), 0.1)
    except (TypeError, ValueError):  # no header, or a date, which a proxy may send
        return _DEFAULT_PAUSE_SECONDS
