"""The service's errors, and the one table that maps each kind to problem+json (RFC 9457)."""

import errno
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.errors import DiskFull
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import DATABASE_DOWN
from app.embedding.batch_queue import QueueClosed, QueueFull
from app.embedding.engine import EngineError
from app.index.port import IndexLost, IndexUnreachable
from app.index.sync import IndexNotReady
from app.kit.disconnect import ClientDisconnected
from app.problem import Problem
from model.decoding import PictureError

MEDIA_TYPE = "application/problem+json"


class PasserbyError(Exception):
    """The base of the service's own errors; the message says what was wrong, with which value, and what to do."""


class InvalidRequest(PasserbyError):
    """A request, or one item of it, cannot be understood; `where` names the field."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


class UnknownCamera(InvalidRequest):
    """A filter names a camera that does not exist."""


class NotFound(PasserbyError):
    """What a URL names does not exist."""


class Unauthorised(PasserbyError):
    """The API key is missing or wrong."""


class LinkRefused(Unauthorised):
    """A signed link has expired or was altered."""


class NotReady(PasserbyError):
    """A part of the service that the request needs does not work now."""


class EmbeddingIncomplete(NotReady):
    """No model is active yet, because the next one has not embedded all crops.

    embedded, total: crops; retry_after: estimated seconds until it has, None where an operator must act first.
    """

    def __init__(
        self, message: str, model_id: str, embedded: int, total: int, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.embedded = embedded
        self.total = total
        self.retry_after = retry_after


class Conflict(PasserbyError):
    """The request conflicts with the present state or a running operation."""


@dataclass(frozen=True)
class _Kind:
    status: int
    slug: str
    title: str


_NOT_READY = _Kind(503, "not-ready", "The service cannot answer now")
_DATABASE = _Kind(503, "database", "The database does not work now")
_DISK_FULL = _Kind(507, "disk-full", "The disk is full")
_NOT_FOUND = _Kind(404, "not-found", "Not found")

_KINDS: dict[type[Exception], _Kind] = {
    InvalidRequest: _Kind(422, "invalid-request", "The request cannot be understood"),
    UnknownCamera: _Kind(422, "unknown-camera", "A camera is not known"),
    NotFound: _NOT_FOUND,
    Conflict: _Kind(409, "conflict", "Conflict with the present state or a running operation"),
    Unauthorised: _Kind(401, "unauthorised", "The API key is missing or wrong"),
    LinkRefused: _Kind(401, "link", "The link has expired or was altered"),
    NotReady: _NOT_READY,
    IndexNotReady: _NOT_READY,
    IndexUnreachable: _NOT_READY,
    IndexLost: _NOT_READY,
    PictureError: _Kind(422, "picture", "A picture cannot be used"),
    EngineError: _Kind(500, "engine", "The model failed on this picture"),
    QueueFull: _Kind(429, "queue-full", "Too many requests; try again later"),
    QueueClosed: _Kind(503, "not-accepting", "The service accepts no pictures now"),
    **dict.fromkeys(DATABASE_DOWN, _DATABASE),
    ClientDisconnected: _Kind(499, "client-disconnected", "The client disconnected"),  # only for log and metrics
}

KNOWN_ERRORS: tuple[type[Exception], ...] = tuple(_KINDS)
"""Every exception that `problem_of` takes."""

_BY_STATUS = {
    400: _Kind(400, "bad-request", "The request cannot be read"),
    403: _Kind(403, "foreign-page", "A page of another site may not do this"),
    404: _NOT_FOUND,
    405: _Kind(405, "method-not-allowed", "Method not allowed"),
    408: _Kind(408, "too-slow", "The request did not arrive in time"),
    413: _Kind(413, "request-too-large", "The request is too large"),
    421: _Kind(421, "foreign-host", "The service has another name"),
    500: _Kind(500, "internal", "The service failed"),
    503: _Kind(503, "too-many-connections", "The service is busy"),
}


def is_disk_full(error: Exception) -> bool:
    """Whether an error is that of a full disk, of this machine or of the database's server."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or isinstance(cause, DiskFull)


def problem_of(error: Exception, **extra: Any) -> Problem:
    """The problem for one of KNOWN_ERRORS, or of a full disk."""
    if is_disk_full(error):
        return _problem(_DISK_FULL, "the disk is full, so nothing was stored: make room, or delete crops", extra)
    kind = next(_KINDS[base] for base in type(error).__mro__ if base in _KINDS)
    slug = kind.slug
    if isinstance(error, InvalidRequest):
        extra["where"] = error.where
    if isinstance(error, EmbeddingIncomplete):
        extra |= {"model_id": error.model_id, "embedded": error.embedded, "total": error.total}
    if isinstance(error, PictureError):
        slug = f"{kind.slug}-{error.kind}"
    detail = str(error)
    if isinstance(error, DBAPIError):  # clients must not see the statement and its values
        detail = f"{error.orig}; try again in a moment"
    elif isinstance(error, PoolTimeout):
        detail = "no connection to the database became free in time; try again in a moment"
    return _problem(_Kind(kind.status, slug, kind.title), detail, extra)


def problem_of_status(status: int, detail: str, **extra: Any) -> Problem:
    """The problem for an error that only has an HTTP status."""
    return _problem(_BY_STATUS.get(status, _Kind(status, "error", "The request failed")), detail, extra)


def _problem(kind: _Kind, detail: str, extra: Mapping[str, Any]) -> Problem:
    return Problem(
        type=f"urn:passerby:problem:{kind.slug}", title=kind.title, status=kind.status, detail=detail, **extra
    )
