"""What endpoints are given: the services that `app.main` put together, and the check of the API key."""

import secrets
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.database import Database
from app.embedding.service import EmbeddingService
from app.errors import Unauthorised
from app.gallery.service import GalleryService
from app.index.keeper import IndexKeeper
from app.search.service import SearchService
from app.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of a running service."""

    settings: Settings
    database: Database
    embedding: EmbeddingService
    index: IndexKeeper
    gallery: GalleryService
    search: SearchService


def services(request: Request) -> Services:
    """The services of the application that a request came to."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]


def _embedding(parts: ServicesDep) -> EmbeddingService:
    return parts.embedding


def _gallery(parts: ServicesDep) -> GalleryService:
    return parts.gallery


def _search(parts: ServicesDep) -> SearchService:
    return parts.search


EmbeddingDep = Annotated[EmbeddingService, Depends(_embedding)]
GalleryDep = Annotated[GalleryService, Depends(_gallery)]
SearchDep = Annotated[SearchService, Depends(_search)]

_API_KEY = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    description="What PASSERBY_API_KEY was set to when the service started; nothing where it was not set",
)


def require_api_key(parts: ServicesDep, given: Annotated[str | None, Security(_API_KEY)]) -> None:
    """Let a request pass if no API key is set or it has the right one. Raises Unauthorised."""
    wanted = parts.settings.api_key
    if wanted is None:
        return
    if given is None or not secrets.compare_digest(given.encode(), wanted.get_secret_value().encode()):
        raise Unauthorised("send the service's API key in the header X-API-Key")
