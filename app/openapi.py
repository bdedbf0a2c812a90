"""The OpenAPI document, where it has to say more than FastAPI finds out by itself."""

from typing import Any

from fastapi import FastAPI

from app.errors import Problem

DESCRIPTION = """
Post a picture of a person, get back, ranked, where else that person was seen.

1. **Put crops into the gallery** with `POST /embed`: pictures of one person each, with the camera and the time.
2. **Find a person** with `POST /search`: pick a picture, press *Execute*.
3. **See the matches** as one picture with `GET /searches/{search_id}/sheet.jpg`.

Matches are candidates to look at. They never prove who somebody is.
"""

TAGS = [
    {"name": "search", "description": "Where else was this person seen?"},
    {"name": "crops", "description": "The gallery: pictures of one person each, cut from a camera's frames."},
    {"name": "cameras", "description": "Where crops come from. A camera comes to be with its first crop."},
    {"name": "service", "description": "Health, metrics, and the model that is in use."},
]


def describe(app: FastAPI) -> None:
    """Complete the document: files that Swagger UI draws as file pickers, errors as problem+json."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _mark_binary(document)
        return document

    app.openapi = complete  # type: ignore[method-assign]


def _mark_binary(node: Any) -> None:
    """Swagger UI draws a text box for a list of files unless its items say `format: binary`."""
    if isinstance(node, dict):
        if node.get("contentMediaType") == "application/octet-stream":
            node["format"] = "binary"
        for child in node.values():
            _mark_binary(child)
    elif isinstance(node, list):
        for child in node:
            _mark_binary(child)
