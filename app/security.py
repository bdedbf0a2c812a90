"""Authentication by an API key, or by a signed link."""

import secrets
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader
from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Unauthorised
from app.handlers import answer_to
from app.kit.paths import path_of
from app.kit.provide import provided
from app.links import signer_of
from app.settings import Settings

_HEADER = "X-API-Key"
_API_KEY = APIKeyHeader(
    name=_HEADER,
    auto_error=False,
    description="The value of PASSERBY_API_KEY at the service's start; not needed where it was not set",
)
_OPEN_PAGES = ("/", "/docs", "/openapi.json")
_OPEN_FOLDERS = ("/static-offline-docs/", "/health/")

SettingsDep = Annotated[Settings, Depends(provided(Settings))]
GivenKey = Annotated[str | None, Security(_API_KEY)]
LinkField = Annotated[str | None, Query(description="Part of the links in answers; not needed with the API key")]


class KeyGuard:
    """ASGI middleware that refuses requests without the API key before anything reads their bodies.

    A signed link passes: its endpoint checks it.
    """

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._api_key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not _is_open(path_of(scope)):
            given = Headers(scope=scope).get(_HEADER)
            is_link = (
                given is None
                and scope["method"] in ("GET", "HEAD")
                and "signature" in QueryParams(scope["query_string"])
            )
            if not is_link and not secrets.compare_digest((given or "").encode(), self._api_key):
                app = answer_to(_NEEDS_KEY)
        await app(scope, receive, send)


_NEEDS_KEY = Unauthorised(f"send the service's API key in the header {_HEADER}")


def _is_open(path: str) -> bool:
    return path in _OPEN_PAGES or path.startswith(_OPEN_FOLDERS)


async def require_api_key(settings: SettingsDep, given: GivenKey) -> None:
    """Accept no link in place of the API key, which KeyGuard has checked. Raises Unauthorised."""
    if settings.api_key is not None and given is None:
        raise _NEEDS_KEY


async def require_api_key_or_link(
    request: Request, settings: SettingsDep, given: GivenKey, expires: LinkField = None, signature: LinkField = None
) -> None:
    """Accept also a GET of a link from an answer, as long as it is valid. Raises Unauthorised, LinkRefused."""
    signer = signer_of(settings)
    if signer is None or given is not None:
        return
    if expires is None or signature is None:
        raise _NEEDS_KEY
    signer.check(request.scope["route"].path.format_map(request.path_params), expires, signature)
