"""Services with an index on a Milvus server: one, several, and while the server is down."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.app.milvus_lite_process import MilvusLite
from tests.app.running import embed, found, jpeg, running_service, search, stored
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]


@pytest.fixture
def on_milvus(settings: Settings, milvus_lite: str) -> Settings:
    """Settings for a service whose index is on Milvus Lite, on each kind of database."""
    return settings.model_copy(update={"index_url": milvus_lite})


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MilvusLite]:
    """A server that a test may stop."""
    pytest.importorskip("milvus_lite", reason="the wheel milvus-lite is not installed")
    server = MilvusLite(tmp_path / "lite")
    yield server
    server.stop()


def test_crops_are_stored_found_by_filters_and_deleted(run: Run, on_milvus: Settings) -> None:
    client = run(on_milvus)
    first, second = stored(client, 1, 2, person_id='anna "the \\ cat" ☃')
    (third,) = stored(client, 3, camera="hall")
    assert found(client, 1)[0] == first["id"]
    assert found(client, 3, camera_ids=["hall"]) == [third["id"]]
    assert set(found(client, 3, exclude_camera_ids=["hall"])) == {first["id"], second["id"]}
    assert set(found(client, 3, person_id='anna "the \\ cat" ☃')) == {first["id"], second["id"]}
    answer = search(client, jpeg(3), camera_ids=["gate"], top_k=1).json()
    assert (len(answer["matches"]), answer["compared"], answer["gallery_size"]) == (1, 2, 3)
    assert client.get("/health/ready").json()["gallery_size"] == 3
    client.delete(f"/crops/{first['id']}")
    assert set(found(client, 1)) == {second["id"], third["id"]}
    assert search(client, jpeg(1)).json()["gallery_size"] == 2


def test_a_gallery_with_a_faiss_index_is_indexed_on_milvus_automatically(
    run: Run, settings: Settings, on_milvus: Settings
) -> None:
    with running_service(settings) as client:
        crops = stored(client, *range(10))
    with running_service(on_milvus) as client:
        assert set(found(client, 1)) == {crop["id"] for crop in crops}
        crops += stored(client, 10)
    assert set(found(run(settings), 1)) == {crop["id"] for crop in crops}, "and back"


def test_two_services_share_one_index(run: Run, on_milvus: Settings, tmp_path: Path) -> None:
    if (on_milvus.database_url or "").startswith("sqlite"):
        pytest.skip("several services need PostgreSQL")
    images_url = (tmp_path / "images").as_uri()
    one, two = (
        run(on_milvus.model_copy(update={"data_dir": tmp_path / name, "images_url": images_url}))
        for name in ("one", "two")
    )
    (crop,) = stored(one, 1)
    assert found(two, 1) == [crop["id"]], "what one has stored the other finds at once"
    assert two.delete(f"/crops/{crop['id']}").status_code == 204
    assert found(one, 1) == []
    assert search(one, jpeg(1)).json()["gallery_size"] == 0
    crops = [
        stored(client, seed)[0]["id"] for seed in range(2, 12) for client in (one, two) if seed % 2 or client is two
    ]
    assert set(found(one, 2)) == set(found(two, 2)) == set(crops)


def test_a_service_is_red_without_its_milvus_server_and_recovers(
    run: Run, settings: Settings, own_server: MilvusLite
) -> None:
    client = run(settings.model_copy(update={"index_url": own_server.url}))
    (crop,) = stored(client, 1)
    own_server.stop()
    answer = search(client, jpeg(1))
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert own_server.url in answer.json()["detail"]
    ready = client.get("/health/ready")
    assert (ready.status_code, own_server.url in ready.json()["detail"]) == (503, True)
    assert client.get("/health/live").status_code == 200
    assert client.get(f"/crops/{crop['id']}").status_code == 200, "what needs no index works"
    assert embed(client, jpeg(2)).status_code == 503
    own_server.start()
    until(lambda: client.get("/health/ready").status_code == 200, 30)
    assert len(found(client, 2)) == 2, "what was stored in between is there"


def test_requests_are_answered_soon_while_the_milvus_server_is_down(
    run: Run, settings: Settings, own_server: MilvusLite
) -> None:
    client = run(settings.model_copy(update={"index_url": own_server.url}))
    stored(client, 1)
    own_server.stop()
    until(lambda: client.get("/health/ready").status_code == 503)
    began = time.monotonic()
    for _ in range(5):
        assert search(client, jpeg(1)).status_code == 503
    assert time.monotonic() - began < 5
