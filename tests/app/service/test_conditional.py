"""HEAD, and requests for what the client has already."""

import hashlib
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.app.running import jpeg, search, stored


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, batch_size=32)


@pytest.fixture
def database_url() -> str:
    """Not used: SQLite is in the data folder."""
    return ""


@pytest.fixture
def pictures(client: httpx.Client) -> dict[str, str]:
    """The paths of a crop's picture and of a contact sheet."""
    (crop,) = stored(client, 1)
    return {"image": crop["image_url"], "sheet": search(client, jpeg(1)).json()["sheet_url"]}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/crops", "/docs", "/nowhere"])
def test_head_has_the_status_and_headers_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("kind", ["image", "sheet"])
def test_head_of_a_picture(client: httpx.Client, pictures: dict[str, str], kind: str) -> None:
    head, get = client.head(pictures[kind]), client.get(pictures[kind])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]
    assert int(head.headers["content-length"]) == len(get.content)


def test_head_counts_as_such(client: httpx.Client) -> None:
    client.head("/crops")
    metrics = client.get("/metrics").text
    assert 'passerby_http_request_seconds_count{method="HEAD",route="/crops",status="200"} 1.0' in metrics


def test_head_of_what_has_no_get_is_refused(client: httpx.Client) -> None:
    refused = client.head("/embed")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("kind", ["image", "sheet"])
def test_a_picture_is_not_sent_again(client: httpx.Client, pictures: dict[str, str], kind: str) -> None:
    first = client.get(pictures[kind])
    tag = first.headers["etag"]
    assert tag == f'"{hashlib.sha256(first.content).hexdigest()}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(pictures[kind], headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == first.headers["cache-control"]
    assert client.head(pictures[kind], headers={"If-None-Match": tag}).status_code == 304
    for unknown in ('"other"', tag[:-2] + '"', tag.strip('"'), ""):
        assert client.get(pictures[kind], headers={"If-None-Match": unknown}).status_code == 200, unknown


def test_a_sheet_that_has_changed_is_sent(client: httpx.Client) -> None:
    crops = stored(client, 1, 2)
    url = search(client, jpeg(1)).json()["sheet_url"]
    tag = client.get(url).headers["etag"]
    client.delete(f"/crops/{crops[0]['id']}")
    again = client.get(url, headers={"If-None-Match": tag})
    assert again.status_code == 200
    assert again.headers["etag"] != tag


def test_a_deleted_picture_is_gone_for_clients_that_have_it(client: httpx.Client) -> None:
    (crop,) = stored(client, 1)
    tag = client.get(crop["image_url"]).headers["etag"]
    client.delete(f"/crops/{crop['id']}")
    assert client.get(crop["image_url"], headers={"If-None-Match": tag}).status_code == 404
