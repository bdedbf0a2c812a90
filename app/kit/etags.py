"""Responses that a client need not load again: an ETag by content, and 304 for a client that has it."""

import re
from typing import Annotated, Any

from fastapi import Header, Response, status

IfNoneMatch = Annotated[
    str | None, Header(description="ETags of earlier answers; 304 without a body if the content is one of them")
]

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has this content already"}}
"""The OpenAPI response of an endpoint that returns `tagged` responses."""

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def tagged(content: bytes, sha256: str, media_type: str, cache_control: str, if_none_match: str | None) -> Response:
    """A response with `content`, or 304 where `if_none_match` has its ETag. sha256: of the content."""
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Cache-Control": cache_control}
    if if_none_match is not None and (if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
