"""The OpenAPI document is correct: no request gets a 5xx or an undocumented response."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from pydantic import SecretStr

from app.embedding.batch_queue import QueueFull
from app.errors import Conflict, InvalidRequest, LinkRefused, NotFound, NotReady, Unauthorised, problem_of
from app.examples import ANSWERS, PROBLEM
from app.openapi import CONTACT, LICENCE
from app.problem import Problem
from app.settings import Settings
from tests.app.running import jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

ERRORS = (
    Conflict(),
    InvalidRequest("", ""),
    LinkRefused(),
    NotFound(),
    NotReady(),
    QueueFull(1.0),
    Unauthorised(),
)
"""One of each kind."""
KEY = "a-secret-of-the-tests"


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, api_key=SecretStr(KEY))


@pytest.fixture
def client(client: httpx.Client) -> httpx.Client:
    """A client that sends the key."""
    client.headers["X-API-Key"] = KEY
    return client


def test_lists_of_files_are_drawn_as_file_pickers(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for form in ("Body_embed", "Body_search"):
        files = schemas[form]["properties"]["files"]
        assert (files["type"], files["items"]["format"]) == ("array", "binary")


def test_a_frame_is_drawn_as_a_file_picker_and_its_boxes_are_left_empty(client: httpx.Client) -> None:
    form = client.get("/openapi.json").json()["components"]["schemas"]["Body_embed"]
    frame, boxes = form["properties"]["frame"], form["properties"]["boxes"]
    assert (frame["type"], frame["format"]) == ("string", "binary")
    assert (boxes["type"], boxes["examples"]) == ("string", [""])
    assert not {"files", "frame", "boxes"} & set(form.get("required", []))


def test_filters_and_weights_in_json_are_left_empty(client: httpx.Client) -> None:
    """Otherwise Swagger UI sends its example, and searches leave crops out silently."""
    document = client.get("/openapi.json").json()
    form = document["components"]["schemas"]["Body_search"]["properties"]
    listing = {one["name"]: one for one in document["paths"]["/crops"]["get"]["parameters"]}
    for name in ("attributes", "part_weights"):
        assert (form[name]["type"], form[name]["examples"]) == ("string", [""])
    assert listing["attributes"]["schema"]["type"] == "string"
    assert "examples" not in listing["attributes"]["schema"]


def operations_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation for methods in document["paths"].values() for operation in methods.values()
    }


def test_the_ids_of_operations_are_short_and_stay(client: httpx.Client) -> None:
    """Generated clients have methods of these names."""
    assert set(operations_of(client.get("/openapi.json").json())) == {
        "begin_reindex", "cancel_reindex", "delete_camera", "delete_crop", "delete_crops", "delete_model",
        "delete_search", "embed", "get_camera", "get_crop", "get_crop_image", "get_live", "get_metrics", "get_ready",
        "get_reindex", "get_search", "get_sheet", "list_cameras", "list_crops", "list_models", "list_searches",
        "patch_crop", "patch_crops", "put_camera", "search",
    }  # fmt: skip


def test_errors_are_described_once_and_every_operation_refers_to_it(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for name, operation in operations_of(document).items():
        errors = {
            status: response
            for status, response in operation["responses"].items()
            if not status.startswith(("2", "304"))
        }
        assert errors == {"default": {"$ref": "#/components/responses/Problem"}}, name
    problem = document["components"]["responses"]["Problem"]
    assert list(problem["content"]) == ["application/problem+json"]
    for status in {kind.status for kind in (problem_of(error) for error in ERRORS)}:
        assert str(status) in problem["description"]


def test_every_answer_in_json_has_an_example_that_is_one(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validated = set()
    for name, operation in operations_of(document).items():
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/json")
            if content:
                resolved = {"$defs": document["components"]["schemas"], **content["schema"]}
                schema = json.loads(json.dumps(resolved).replace("#/components/schemas/", "#/$defs/"))
                jsonschema_rs.validate(schema, content["example"])
                validated.add(name)
    assert validated == ANSWERS.keys()
    Problem.model_validate(PROBLEM)


def test_answers_link_to_their_pictures(client: httpx.Client) -> None:
    operations = operations_of(client.get("/openapi.json").json())
    (crop,) = stored(client, 1)
    embedded = {"items": [{"crop": crop}]}
    for name, answer in (("search", search(client, jpeg(1)).json()), ("embed", embedded)):
        (success,) = (response for status, response in operations[name]["responses"].items() if status.startswith("2"))
        for link in success["links"].values():
            (parameter, expression), *_ = link["parameters"].items()
            value: Any = answer
            for step in expression.removeprefix("$response.body#/").split("/"):
                value = value[int(step) if step.isdecimal() else step]
            path = next(
                path
                for path, methods in client.get("/openapi.json").json()["paths"].items()
                if methods.get("get", {}).get("operationId") == link["operationId"]
            )
            assert client.get(path.replace(f"{{{parameter}}}", value)).status_code == 200


def test_the_document_names_licence_and_contact(client: httpx.Client) -> None:
    info = client.get("/openapi.json").json()["info"]
    assert (info["license"], info["contact"]) == (LICENCE, CONTACT)


def test_a_browser_that_opens_the_service_sees_the_docs(client: httpx.Client) -> None:
    del client.headers["X-API-Key"]
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
    assert "swagger" in client.get("/", follow_redirects=True).text
    assert client.post("/").headers["allow"] == "GET"


def test_pictures_are_offered_before_json(client: httpx.Client) -> None:
    """Swagger UI asks for the first, and draws it."""
    operations = operations_of(client.get("/openapi.json").json())
    assert list(operations["search"]["responses"]["200"]["content"]) == ["image/jpeg", "application/json"]


def test_the_document_asks_for_a_key_only_where_one_is_set(client: httpx.Client, run: Run, settings: Settings) -> None:
    assert client.get("/openapi.json").json()["paths"]["/crops"]["get"]["security"]
    open_to_all = run(settings.model_copy(update={"api_key": None, "data_dir": settings.data_dir / "other"}))
    assert "security" not in open_to_all.get("/openapi.json").json()["paths"]["/crops"]["get"]


def test_a_405_lists_all_methods_of_the_path(client: httpx.Client) -> None:
    assert client.put("/crops/" + "0" * 26).headers["allow"] == "DELETE, GET, HEAD, PATCH"


def test_no_page_of_the_docs_needs_the_network(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "https://" not in page.replace("https://fastapi.tiangolo.com", "")
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_schemathesis_finds_no_fault(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, 1, 2)
    search(client, jpeg(1))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", str(client.base_url.join("/openapi.json")),
        "--checks", "all", "--exclude-checks", "positive_data_acceptance,unsupported_method",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "20261122", "--workers", "1",
        "--header", f"X-API-Key: {KEY}", "--no-color", "--suppress-health-check", "all",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
