"""Completes the OpenAPI document that FastAPI generates."""

from typing import Any

from fastapi import FastAPI

from app.errors import Problem

DESCRIPTION = """
Post a picture of a person, get back, ranked, where else that person was seen.

1. **Put crops into the gallery** with `POST /embed`: pictures of one person each, with the camera and the time;
   or a whole frame, with a box for each person in it.
2. **Find a person** with `POST /search`: pick a picture, press *Execute*.
3. **See the matches** as one picture with `GET /searches/{search_id}/sheet.jpg`.

Matches are candidates to look at. They never prove who somebody is.
"""

TAGS = [
    {"name": "search", "description": "Where else was this person seen?"},
    {"name": "crops", "description": "The gallery: pictures of one person each, cut from a camera's frames."},
    {"name": "cameras", "description": "Where crops come from. A camera is created with its first crop."},
    {"name": "service", "description": "Health, metrics, and the model that is in use."},
]


def describe(app: FastAPI, needs_api_key: bool) -> None:
    """Complete the document: file pickers for Swagger UI, errors as problem+json, the API key if needed."""
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
        _leave_out_null(document)
        _leave_optional_fields_empty(document)
        for form in _forms(document):
            form["additionalProperties"] = False
        if not needs_api_key:
            _leave_out_security(document)
        return document

    app.openapi = complete  # type: ignore[method-assign]


def _leave_out_security(document: dict[str, Any]) -> None:
    del document["components"]["securitySchemes"]
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)


def _leave_out_null(document: dict[str, Any]) -> None:
    """Remove `null` from the types of optional form and query fields, which can be left out but cannot be null.

    Without this, Swagger UI shows a text box for an optional list of files.
    """
    places = [field for form in _forms(document) for field in form["properties"].values()]
    for operations in document["paths"].values():
        for operation in operations.values():
            places += [parameter["schema"] for parameter in operation.get("parameters", [])]
    for schema in places:
        kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])


def _leave_optional_fields_empty(document: dict[str, Any]) -> None:
    """Add empty examples: Swagger UI sends an invented value for fields without a default or an example."""
    for form in _forms(document):
        for name, field in form["properties"].items():
            if name not in form.get("required", []) and "default" not in field:
                field.setdefault("examples", [[] if field.get("type") == "array" else ""])


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
