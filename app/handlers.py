"""Exception handlers that respond with problem+json."""

import math

import structlog
from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.embedding.batch_queue import QueueFull
from app.errors import (
    KNOWN_ERRORS,
    MEDIA_TYPE,
    EmbeddingIncomplete,
    InvalidRequest,
    Unauthorised,
    is_disk_full,
    problem_of,
    problem_of_status,
)
from app.kit.paths import path_of
from app.problem import Problem

_log = structlog.get_logger()


def handle_errors(app: FastAPI) -> None:
    """Register the handlers."""
    for kind in KNOWN_ERRORS:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _unexpected)


async def _known(_: Request, error: Exception) -> Response:
    return answer_to(error)


def answer_to(error: Exception) -> Response:
    """The answer to one of KNOWN_ERRORS."""
    headers = {}
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "APIKey"
    if isinstance(error, QueueFull | EmbeddingIncomplete) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, EmbeddingIncomplete):  # the reindex worker logs the progress
        _log.error("request failed", error=str(error), kind=type(error).__name__)
    return respond(problem, headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """Validation errors of parameters and bodies; reports all of them."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        {"where": ".".join(str(step) for step in fault["loc"]), "message": fault["msg"].removeprefix("Value error, ")}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['where']}: {fault['message']}" for fault in faults)
    first = InvalidRequest(detail, faults[0]["where"])
    return respond(problem_of(first, errors=faults))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == status.HTTP_405_METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request)) or headers.get("Allow", "")
    return respond(problem_of_status(error.status_code, str(error.detail)), headers)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all operations at the request's path; the framework names only those of the first route."""
    methods = {
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if compile_path(template)[0].match(path_of(request.scope))
        for method in operations
    }
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _os_error(request: Request, error: Exception) -> Response:
    return answer_to(error) if is_disk_full(error) else await _unexpected(request, error)


async def _unexpected(_: Request, error: Exception) -> Response:
    _log.error("request failed unexpectedly", exc_info=error)
    problem = problem_of_status(500, "an unexpected error; the service's log has the details")
    # uvicorn closes the connection, too; without the header the client's next request may race with that
    return respond(problem, {"Connection": "close"})


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The answer that is a problem."""
    return Response(problem.model_dump_json(), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
