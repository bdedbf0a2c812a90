"""The OpenAPI document is true: whatever is asked, no 5xx and no undocumented answer comes."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from running import jpeg, search, stored

from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint)


def test_lists_of_files_are_drawn_as_file_pickers(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for form in ("Body_embed_embed_post", "Body_search_search_post"):
        files = schemas[form]["properties"]["files"]
        assert (files["type"], files["items"]["format"]) == ("array", "binary")


def test_every_documented_error_is_a_problem(client: httpx.Client) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)


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
        "--no-color", "--suppress-health-check", "all",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
