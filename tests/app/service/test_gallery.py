"""Crops and cameras: read, listed, deleted."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.settings import Settings
from tests.app.running import embed, found, jpeg, search, stored


def image_files(settings: Settings) -> int:
    """The number of image files."""
    return sum(path.is_file() for path in (settings.data_dir / "images").rglob("*"))


def test_a_deleted_crop_is_gone_everywhere_at_once(client: httpx.Client, settings: Settings) -> None:
    one, two = stored(client, 1, 2)
    assert client.delete(f"/crops/{one['id']}").status_code == 204
    assert found(client, 1) == [two["id"]]
    for path in (f"/crops/{one['id']}", f"/crops/{one['id']}/image"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/crops/{one['id']}").status_code == 404
    assert [crop["id"] for crop in client.get("/crops").json()["items"]] == [two["id"]]


def test_an_image_stays_while_anything_uses_it(client: httpx.Client, settings: Settings) -> None:
    (one,) = stored(client, 1)
    (other,) = stored(client, 1, camera="lobby")
    assert image_files(settings) == 1
    client.delete(f"/crops/{one['id']}")
    assert client.get(other["image_url"]).content == jpeg(1)
    client.delete(f"/crops/{other['id']}")
    assert image_files(settings) == 0


def test_a_search_by_the_same_bytes_keeps_no_picture_of_a_deleted_crop(
    client: httpx.Client, settings: Settings
) -> None:
    (crop,) = stored(client, 1)
    answer = search(client, jpeg(1)).json()
    client.delete(f"/crops/{crop['id']}")
    assert image_files(settings) == 0
    assert client.get(answer["sheet_url"]).status_code == 200


def test_a_crop_can_come_back_after_its_deletion(client: httpx.Client) -> None:
    (first,) = stored(client, 1)
    client.delete(f"/crops/{first['id']}")
    (second,) = stored(client, 1)
    assert second["id"] != first["id"]
    assert found(client, 1) == [second["id"]]
    assert client.get(second["image_url"]).content == jpeg(1)


def test_pages_hold_every_crop_once_while_new_ones_are_stored(client: httpx.Client) -> None:
    expected = []
    for minute in (3, 1, 2, 1):
        crops = stored(
            client, *range(10 * len(expected), 10 * len(expected) + 3), captured_at=f"2026-05-04T10:0{minute}:00Z"
        )
        expected += [crop["id"] for crop in crops]
    seen, cursor, times = [], None, []
    while True:
        page = client.get("/crops", params={"limit": 5} | ({"cursor": cursor} if cursor else {})).json()
        seen += [crop["id"] for crop in page["items"]]
        times += [crop["captured_at"] for crop in page["items"]]
        stored(client, 900 + len(seen), captured_at="2026-05-04T10:09:00Z")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(expected)
    assert times == sorted(times, reverse=True)


def test_an_invalid_cursor_is_an_error(client: httpx.Client) -> None:
    for wrong in ("x", "AAAA", "é"):
        answer = client.get("/crops", params={"cursor": wrong})
        assert (answer.status_code, answer.json()["where"]) == (422, "cursor")


def test_cameras_are_created_with_their_first_crop_and_can_be_updated(client: httpx.Client) -> None:
    stored(client, 1, 2, camera="gate")
    response = client.put("/cameras/gate", json={"name": "North gate", "place": "Gate 3", "time_zone": "Europe/Vienna"})
    assert response.status_code == 200
    assert client.get("/cameras/gate").json() == response.json()
    assert (response.json()["crops"], response.json()["name"]) == (2, "North gate")
    stored(client, 3, camera="gate")
    assert client.get("/cameras/gate").json()["name"] == "North gate"
    client.put("/cameras/lobby", json={"name": "Lobby"})
    assert [(camera["id"], camera["crops"]) for camera in client.get("/cameras").json()] == [("gate", 3), ("lobby", 0)]
    assert client.get("/cameras/none").status_code == 404


@pytest.mark.parametrize("wrong", [{}, {"name": ""}, {"name": "x", "time_zone": "Mars/Olympus"}, {"name": "x", "a": 1}])
def test_an_invalid_camera_is_refused(client: httpx.Client, wrong: dict[str, object]) -> None:
    assert client.put("/cameras/gate", json=wrong).status_code == 422
    assert client.get("/cameras").json() == []


def test_many_clients_posting_the_same_crops_make_each_once(client: httpx.Client, settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: embed(client, *(jpeg(seed) for seed in range(6))), range(8)))
    statuses = [item["status"] for answer in answers for item in answer.json()["items"]]
    assert statuses.count("created") == 6
    assert statuses.count("existing") == 42
    assert len(client.get("/crops").json()["items"]) == 6


def test_posting_and_deleting_the_same_picture_at_once_never_loses_an_image(client: httpx.Client) -> None:
    """Many crops share one image file; deletions race with new crops of it."""

    def come_and_go(number: int) -> None:
        for round_ in range(6):
            (crop,) = stored(client, 7, camera=f"cam-{number}", captured_at=f"2026-05-04T10:00:{round_:02}Z")
            assert client.get(crop["image_url"]).content == jpeg(7)
            if round_ < 5:
                client.delete(f"/crops/{crop['id']}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
    crops = client.get("/crops").json()["items"]
    assert len(crops) == 6
    for crop in crops:
        assert client.get(crop["image_url"]).content == jpeg(7)
