"""Authentication by an API key."""

import secrets
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from app.errors import Unauthorised
from app.kit.provide import provided
from app.settings import Settings

_API_KEY = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    description="The value of PASSERBY_API_KEY at the service's start; not needed where it was not set",
)


async def require_api_key(
    settings: Annotated[Settings, Depends(provided(Settings))], given: Annotated[str | None, Security(_API_KEY)]
) -> None:
    """Accept a request if no API key is set or it has the right one. Raises Unauthorised."""
    if settings.api_key is None:
        return
    expected = settings.api_key.get_secret_value()
    if given is None or not secrets.compare_digest(given.encode(), expected.encode()):
        raise Unauthorised("send the service's API key in the header X-API-Key")
