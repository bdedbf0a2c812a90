"""The OpenAPI document is correct: no request gets a 5xx or an undocumented response."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.settings import Settings
from tests.app.running import jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

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
    for form in ("Body_embed_embed_post", "Body_search_search_post"):
        files = schemas[form]["properties"]["files"]
        assert (files["type"], files["items"]["format"]) == ("array", "binary")


def test_a_frame_is_drawn_as_a_file_picker_and_its_boxes_are_left_empty(client: httpx.Client) -> None:
    form = client.get("/openapi.json").json()["components"]["schemas"]["Body_embed_embed_post"]
    frame, boxes = form["properties"]["frame"], form["properties"]["boxes"]
    assert (frame["type"], frame["format"]) == ("string", "binary")
    assert (boxes["type"], boxes["examples"]) == ("string", [""])
    assert not {"files", "frame", "boxes"} & set(form.get("required", []))


def test_filters_and_weights_in_json_are_left_empty(client: httpx.Client) -> None:
    """Otherwise Swagger UI sends its example, and searches leave crops out silently."""
    document = client.get("/openapi.json").json()
    form = document["components"]["schemas"]["Body_search_search_post"]["properties"]
    listing = {one["name"]: one for one in document["paths"]["/crops"]["get"]["parameters"]}
    for name in ("attributes", "part_weights"):
        assert (form[name]["type"], form[name]["examples"]) == ("string", [""])
    assert listing["attributes"]["schema"]["type"] == "string"
    assert "examples" not in listing["attributes"]["schema"]


def test_every_documented_error_is_a_problem(client: httpx.Client) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)


def test_the_document_asks_for_a_key_only_where_one_is_set(client: httpx.Client, run: Run, settings: Settings) -> None:
    assert client.get("/openapi.json").json()["paths"]["/crops"]["get"]["security"]
    open_to_all = run(settings.model_copy(update={"api_key": None, "data_dir": settings.data_dir / "other"}))
    assert "security" not in open_to_all.get("/openapi.json").json()["paths"]["/crops"]["get"]


def test_a_405_lists_all_methods_of_the_path(client: httpx.Client) -> None:
    assert client.patch("/crops/" + "0" * 26).headers["allow"] == "DELETE, GET, HEAD"


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
