"""Completes the OpenAPI document that FastAPI generates."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.errors import MEDIA_TYPE
from app.examples import ANSWERS, PROBLEM
from app.problem import Problem

DESCRIPTION = """
Post a picture of a person, get back, ranked, where else that person was seen.

1. **Put crops into the gallery** with `POST /embed`: pictures of one person each, with the camera and the time;
   or a whole frame, with a box for each person in it.
2. **Find a person** with `POST /search`: choose a picture, press *Execute*, and see the matches as one picture.
   Choose `application/json` as the media type of the answer to get them as data.

Matches are candidates to look at. They never prove who somebody is.
"""

LICENCE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
CONTACT = {"name": "The Passerby developers"}

TAGS = [
    {"name": "search", "description": "Where else was this person seen?"},
    {"name": "crops", "description": "The gallery: pictures of one person each, cut from a camera's frames."},
    {"name": "cameras", "description": "Where crops come from. A camera is created with its first crop."},
    {"name": "service", "description": "Health, metrics, and the model that is in use."},
]

_PROBLEM_RESPONSE = {
    "description": "An error; `detail` says what was wrong and what to do. 400, 408, 413, 422: the request; 401: its "
    "API key or link; 403: a web page of another site; 404: there is no such thing; 409: a conflict with what is going "
    "on; 421: another name than the service's; 429: too many requests, and when to try again; 500, 503: the service; "
    "507: its disk is full.",
    "headers": {
        "Retry-After": {"description": "Seconds after which to try again, where known", "schema": {"type": "integer"}}
    },
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": PROBLEM}},
}

_CROP = {"crop_id": "$response.body#/items/0/crop/id"}
_SEARCH = {"search_id": "$response.body#/search_id"}
_LINKS = {
    "embed": {
        "crop": {"operationId": "get_crop", "parameters": _CROP, "description": "The first crop"},
        "image": {"operationId": "get_crop_image", "parameters": _CROP, "description": "The first crop's picture"},
    },
    "search": {
        "search": {"operationId": "get_search", "parameters": _SEARCH, "description": "The same answer again"},
        "sheet": {"operationId": "get_sheet", "parameters": _SEARCH, "description": "The matches as one picture"},
    },
}
"""Links from an operation's answer to other operations, by the operation's id."""


def operation_id(route: APIRoute) -> str:
    """The id of an operation: the name of its function."""
    return route.name


def describe(app: FastAPI, needs_api_key: bool) -> None:
    """Complete the document: file pickers for Swagger UI, examples, links, errors once, the API key if needed."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["responses"] = {"Problem": _PROBLEM_RESPONSE}
        for operation in _operations(document):
            _complete_responses(operation)
        _mark_binary(document)
        _leave_out_null(document)
        _leave_optional_fields_empty(document)
        for form in _forms(document):
            form["additionalProperties"] = False
        if not needs_api_key:
            _leave_out_security(document)
        return document

    app.openapi = complete  # type: ignore[method-assign]


def _complete_responses(operation: dict[str, Any]) -> None:
    """Add the example and the links of an operation's answer, and all errors as one response.

    Swagger UI asks for the first kind of content, so that a picture, where there is one, is drawn.
    """
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own form of errors
    name = operation["operationId"]
    for answer in responses.values():
        content = answer.get("content", {})
        if "application/json" in content:
            as_json = content.pop("application/json")
            content["application/json"] = as_json | ({"example": ANSWERS[name]} if name in ANSWERS else {})
        if name in _LINKS:
            answer["links"] = _LINKS[name]
    responses["default"] = {"$ref": "#/components/responses/Problem"}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _leave_out_security(document: dict[str, Any]) -> None:
    del document["components"]["securitySchemes"]
    for operation in _operations(document):
        operation.pop("security", None)


def _leave_out_null(document: dict[str, Any]) -> None:
    """Remove `null` from the types of optional form and query fields, which can be left out but cannot be null.

    Without this, Swagger UI shows a text box for an optional list of files.
    """
    places = [field for form in _forms(document) for field in form["properties"].values()]
    for operation in _operations(document):
        places += [parameter["schema"] for parameter in operation.get("parameters", [])]
    for schema in places:
        kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])


def _leave_optional_fields_empty(document: dict[str, Any]) -> None:
    """Add empty examples: Swagger UI sends an invented value for fields without a default or an example.

    Of files it shows one picker, which sends nothing as long as no file is chosen.
    """
    for form in _forms(document):
        for name, field in form["properties"].items():
            if name not in form.get("required", []) and "default" not in field:
                files = field.get("items", {}).get("format") == "binary"
                field.setdefault("examples", [[""] if files else [] if field.get("type") == "array" else ""])


def _forms(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema for name, schema in document["components"]["schemas"].items() if name.startswith("Body_")]


def _mark_binary(node: Any) -> None:
    """Add `format: binary` to files: Swagger UI shows a text box for a list of files without it."""
    if isinstance(node, dict):
        if node.get("contentMediaType") == "application/octet-stream":
            node["format"] = "binary"
        for child in node.values():
            _mark_binary(child)
    elif isinstance(node, list):
        for child in node:
            _mark_binary(child)
