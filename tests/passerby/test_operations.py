"""Both clients have a method for every operation of the OpenAPI document, with all of its fields."""

import inspect
import typing
from pathlib import Path
from typing import Any

import pytest

import passerby
from app.gallery.filters import CropFilter, CropSelection
from app.gallery.schemas import LabelsIn
from app.main import create_app
from app.search.parameters import SearchParameters
from app.settings import Settings

BESIDES = {"absolute", "aclose", "close", "crops", "embed_frame", "searches", "upload", "url", "wait_until_ready"}
"""What the clients have for convenience."""

NAMED_OTHERWISE = {
    "files": "pictures",
    "frame": None,  # of embed_frame
    "boxes": None,
    "expires": None,  # of signed links
    "signature": None,
    "if-none-match": None,  # for caches
}
"""The parameters of methods for fields of the API that have another name, or none."""


NOT_OF_THE_API = {"patch_crops": {"change"}}
"""Parameters for several fields: those of labels have the names of filters."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation for methods in document["paths"].values() for operation in methods.values()
    }


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_both_clients_have_every_operation_and_nothing_else(operations: dict[str, Any]) -> None:
    for client in (passerby.Client, passerby.AsyncClient):
        assert public(client) - BESIDES == operations.keys(), client


def test_both_clients_have_the_same_methods() -> None:
    assert public(passerby.Client) - {"close"} == public(passerby.AsyncClient) - {"aclose"}


def test_each_method_takes_all_fields_of_its_operation(document: dict[str, Any], operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        fields = {parameter["name"] for parameter in operation.get("parameters", [])}
        for body in operation.get("requestBody", {}).get("content", {}).values():
            schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
            fields |= schema["properties"].keys()
        expected = {NAMED_OTHERWISE.get(field, field) for field in fields} - {None}
        parameters = parameters_of(getattr(passerby.AsyncClient, name))
        assert parameters - NOT_OF_THE_API.get(name, set()) == expected, name


def parameters_of(method: Any) -> set[str]:
    """The names of a method's parameters, with those of its TypedDict."""
    names = set()
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (options,) = typing.get_args(parameter.annotation)
            names |= options.__annotations__.keys()
        elif parameter.name != "self":
            names.add(parameter.name)
    return names


def test_the_filters_are_those_of_the_service() -> None:
    assert passerby.CropFilters.__annotations__.keys() == CropFilter.model_fields.keys()
    assert passerby.CropSelection.__annotations__.keys() == CropSelection.model_fields.keys()
    assert passerby.Labels.__annotations__.keys() == LabelsIn.model_fields.keys()
    assert passerby.SearchOptions.__annotations__.keys() == SearchParameters.model_fields.keys() | {"consistency"}


def test_all_public_names_are_documented_in_their_place() -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    for name in public(passerby.AsyncClient) - {"aclose"}:
        assert f"`{name}" in page or f".{name}(" in page, name
