"""The service as a whole: secure defaults, readiness, restarts, several services."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from app.settings import Settings
from tests.app.faults import taking_no_connections
from tests.app.running import embed, found, jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

KEY = "a-secret-of-the-tests"


def test_everything_is_found_after_a_restart(run: Run, settings: Settings) -> None:
    from tests.app.running import running_service

    with running_service(settings) as client:
        crops = stored(client, 1, 2, 3)
        client.delete(f"/crops/{crops[1]['id']}")
    again = run(settings)
    assert set(found(again, 1)) == {crops[0]["id"], crops[2]["id"]}
    assert found(again, 1)[0] == crops[0]["id"]


def test_the_index_comes_back_from_the_rows_alone(run: Run, settings: Settings) -> None:
    from tests.app.running import running_service

    with running_service(settings) as client:
        crops = stored(client, 1, 2, 3)
    for path in settings.snapshots_dir.rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert {crop["id"] for crop in crops} == set(found(run(settings), 1))


def test_a_snapshot_of_another_gallery_is_not_used(run: Run, settings: Settings, tmp_path: Path) -> None:
    """The other database has more changes, so sequence numbers alone do not distinguish the two."""
    from tests.app.running import running_service

    with running_service(settings) as client:
        stored(client, 1)
    other = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'other.sqlite3'}"})
    with running_service(other.model_copy(update={"data_dir": tmp_path / "elsewhere"})) as client:
        crops = stored(client, 2, 3, 4)
    assert {crop["id"] for crop in crops} == set(found(run(other), 1))


def test_two_services_on_one_database_see_each_others_crops(run: Run, settings: Settings, tmp_path: Path) -> None:
    images_url = (tmp_path / "images").as_uri()
    one = run(settings.model_copy(update={"data_dir": tmp_path / "one", "images_url": images_url}))
    two = run(settings.model_copy(update={"data_dir": tmp_path / "two", "images_url": images_url}))
    (crop,) = stored(one, 1)
    deadline = time.monotonic() + 5
    while found(two, 1) != [crop["id"]]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    two.delete(f"/crops/{crop['id']}")
    assert found(one, 1) == [], "a deletion holds everywhere at once, through the database"


def test_without_the_api_key_nothing_but_health_and_docs_is_open(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update={"api_key": SecretStr(KEY)}))
    for path in ("/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    paths = client.get("/openapi.json").json()["paths"]
    closed = [(method, path) for path, methods in paths.items() for method in methods if "/health/" not in path]
    assert len(closed) > 20
    for method, path in [*closed, ("get", "/none"), ("post", "/docs/none"), ("get", "/Health/live")]:
        for key in (b"", b"wrong", "sécret".encode("latin-1"), f"{KEY}x".encode()):
            headers = httpx.Headers([(b"X-API-Key", key)] if key else [])
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.json()["type"] == "urn:passerby:problem:unauthorised"
        assert client.request(method, path, headers={"X-API-Key": KEY}).status_code != 401, (method, path)
    refused = embed(client, jpeg(1))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "APIKey")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_listening_beyond_loopback_needs_an_api_key(host: str) -> None:
    with pytest.raises(ValidationError, match="PASSERBY_API_KEY"):
        Settings(host=host)
    assert Settings(host=host, api_key=SecretStr(KEY)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(host=host).host == host


def test_readiness_names_the_model_and_metrics_count_requests(client: httpx.Client) -> None:
    stored(client, 1)
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["gallery_size"]) == (200, 1)
    assert ready.json()["model_id"].startswith("tiny-")
    metrics = client.get("/metrics").text
    assert 'passerby_http_request_seconds_count{method="POST",route="/embed",status="201"} 1.0' in metrics


def test_every_answer_carries_a_request_id(client: httpx.Client) -> None:
    assert client.get("/cameras", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = {client.get("/nowhere", headers={"X-Request-ID": "no good"}).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


def test_errors_of_every_kind_are_problems(client: httpx.Client) -> None:
    for answer, status in (
        (client.get("/nowhere"), 404),
        (client.patch("/cameras"), 405),
        (client.get("/crops/notanid"), 422),
        (client.post("/embed", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"}), 400),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= answer.json().keys()


def test_without_database_connections_clients_get_503(run: Run, settings: Settings) -> None:
    url = settings.database_url or ""
    if not url.startswith("postgresql"):
        pytest.skip("SQLite has no connections that others end")
    client = run(settings)
    with taking_no_connections(url):
        for answer in (embed(client, jpeg(1)), search(client, jpeg(1)), client.get("/crops")):
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:passerby:problem:database")
            assert "not currently accepting connections" in answer.json()["detail"]
            assert "SELECT" not in answer.json()["detail"]
            assert "connection" not in answer.headers, "the client's connection goes on"
    (crop,) = stored(client, 1)
    assert found(client, 1) == [crop["id"]]


def test_an_unexpected_error_closes_the_connection_with_a_header(client: httpx.Client, settings: Settings) -> None:
    """The server closes it anyway; without the header the client's next request would race with that."""
    images = settings.data_dir / "images"
    images.mkdir(parents=True, exist_ok=True)
    for folder in range(256):
        (images / f"{folder:02x}").write_text("a file where a folder should be")
    answer = embed(client, jpeg(1))
    assert answer.status_code == 500
    assert answer.headers["connection"] == "close"
