"""Authentication by an API key, or by a signed link."""

import secrets
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader

from app.errors import Unauthorised
from app.kit.provide import provided
from app.links import signer_of
from app.settings import Settings

_API_KEY = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    description="The value of PASSERBY_API_KEY at the service's start; not needed where it was not set",
)

SettingsDep = Annotated[Settings, Depends(provided(Settings))]
GivenKey = Annotated[str | None, Security(_API_KEY)]
LinkField = Annotated[str | None, Query(description="Part of the links in answers; not needed with the API key")]


async def require_api_key(settings: SettingsDep, given: GivenKey) -> None:
    """Accept a request if no API key is set or it has the right one. Raises Unauthorised."""
    if settings.api_key is None:
        return
    expected = settings.api_key.get_secret_value()
    if given is None or not secrets.compare_digest(given.encode(), expected.encode()):
        raise Unauthorised("send the service's API key in the header X-API-Key")


async def require_api_key_or_link(
    request: Request, settings: SettingsDep, given: GivenKey, expires: LinkField = None, signature: LinkField = None
) -> None:
    """Accept also a GET of a link from an answer, as long as it is valid. Raises Unauthorised, LinkRefused."""
    signer = signer_of(settings)
    if signer is None or given is not None or expires is None or signature is None or request.method != "GET":
        await require_api_key(settings, given)
        return
    signer.check(request.scope["route"].path.format_map(request.path_params), expires, signature)
