"""The links to pictures in answers. With an API key they are signed, so that a browser opens them without the key."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.errors import LinkRefused
from app.kit.provide import provided
from app.settings import Settings

WINDOW_SECONDS = 600
"""A link is valid for one to two windows. All links to a picture in one window are the same, so that browsers can cache
it."""

_PURPOSE = b"passerby: links, version 1"


class Signer:
    """Signs and checks paths, with a key that is derived from the API key."""

    def __init__(self, api_key: str, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970 UTC."""
        self._key = hmac.digest(api_key.encode(), _PURPOSE, hashlib.sha256)
        self._clock = clock

    def query(self, path: str) -> str:
        """The query of a signed link to a path of the API."""
        expires = str((int(self._clock()) // WINDOW_SECONDS + 2) * WINDOW_SECONDS)
        return f"expires={expires}&signature={self._signature(path, expires)}"

    def check(self, path: str, expires: str, signature: str) -> None:
        """Accept a valid query of a path. Raises LinkRefused."""
        expected = self._signature(path, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise LinkRefused("the link was altered, or made with another API key: take it from a new answer")
        if self._clock() >= int(expires):
            raise LinkRefused("the link has expired: take it from a new answer, such as GET /searches/{search_id}")

    def _signature(self, path: str, expires: str) -> str:
        digest = hmac.digest(self._key, f"{path}\n{expires}".encode(errors="replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class Links:
    """Makes links. root_path: where the service is behind a proxy; signer: where there is an API key."""

    root_path: str
    signer: Signer | None

    def crop_image(self, crop_id: str) -> str:
        """The link to a crop's picture."""
        return self._to(f"/crops/{crop_id}/image")

    def sheet(self, search_id: str) -> str:
        """The link to the contact sheet of a search."""
        return self._to(f"/searches/{search_id}/sheet.jpg")

    def _to(self, path: str) -> str:
        return f"{self.root_path}{path}" + (f"?{self.signer.query(path)}" if self.signer else "")


def signer_of(settings: Settings) -> Signer | None:
    """The signer for the API key, if there is one."""
    return None if settings.api_key is None else Signer(settings.api_key.get_secret_value())


async def root_path_of(request: Request) -> str:
    """A dependency for FastAPI: the path behind which a proxy has the service, without a slash at its end."""
    root_path: str = request.scope.get("root_path", "")
    return root_path.rstrip("/")


RootPath = Annotated[str, Depends(root_path_of)]


async def links_of(root_path: RootPath, settings: Annotated[Settings, Depends(provided(Settings))]) -> Links:
    """A dependency for FastAPI: the links of a request's answer."""
    return Links(root_path, signer_of(settings))


LinksDep = Annotated[Links, Depends(links_of)]
