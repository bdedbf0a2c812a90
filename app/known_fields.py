"""Refuses requests with query parameters, form fields or JSON fields that their endpoint does not have."""

from collections.abc import Iterable, Set
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from app.errors import InvalidRequest
from app.kit.names import did_you_mean, shown

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def refuse_unknown_fields(request: Request) -> None:
    """Accept a request whose fields are all in the OpenAPI document. Raises InvalidRequest.

    An unknown field that is ignored would give an answer to another question, such as a search without its filter.
    """
    parameters, fields = _documented(request)
    _check(request.query_params, parameters, "query parameter", fields, "field of its body")
    _check(await _body_fields(request), fields, "field", parameters, "query parameter")


def _documented(request: Request) -> tuple[set[str], set[str]]:
    """The names of the endpoint's query parameters and of its body's fields."""
    document = request.app.openapi()
    operation = document["paths"][request.scope["route"].path][request.method.lower()]
    bodies = operation.get("requestBody", {}).get("content", {}).values()
    return (
        {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"},
        {name for body in bodies for name in _resolved(document, body["schema"])["properties"]},
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].removeprefix("#/components/schemas/")
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


async def _body_fields(request: Request) -> Iterable[str]:
    """The names of a form's or JSON object's fields, also where the endpoint takes none; a malformed body has none.

    FastAPI has read the body of an endpoint that takes one, and refused a malformed one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind in _FORMS:
            return await request.form()
        if kind == "application/json" or kind.endswith("+json"):
            content = await request.json()
            return content if isinstance(content, dict) else ()
    except (HTTPException, ValueError, RecursionError):
        pass
    return ()


def _check(names: Iterable[str], known: Set[str], kind: str, known_elsewhere: Set[str], other_kind: str) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is None:
        return
    hint = f": it is a {other_kind}" if unknown in known_elsewhere else did_you_mean(unknown, known | known_elsewhere)
    raise InvalidRequest(f"there is no {kind} {shown(unknown)} here{hint}", shown(unknown))
